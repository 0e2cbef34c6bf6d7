"""Which library a config is for, and importing MMPreTrain beside a transformers that it cannot use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmdet.models import MaskRCNN
from mmengine.config import Config
from mmpretrain.models import ImageClassifier
from mmseg.models import EncoderDecoder

from mmrope import config_path
from mmrope.commands.hosts import scope_of


class OwnDetector(MaskRCNN):
    """A subclass in a package of the user's."""


@pytest.mark.parametrize(
    'cfg, scope',
    [
        (dict(default_scope='mmseg', model=dict(type='EncoderDecoder')), 'mmseg'),
        (dict(default_scope='mmdet', model=dict(type=EncoderDecoder)), 'mmdet'),
        (dict(model=dict(type=EncoderDecoder)), 'mmseg'),
        (dict(default_scope=None, model=dict(type=ImageClassifier)), 'mmpretrain'),
        (dict(model=dict(type=OwnDetector)), 'mmdet'),
        (dict(model=dict(type='MaskRCNN')), None),
        (dict(), None),
    ],
)
def test_a_config_is_for_its_default_scope_or_for_the_library_of_its_model(cfg: dict, scope: str | None) -> None:
    assert scope_of(Config(cfg)) == scope


def test_transformers_5_leaves_mmpretrain_whole_but_for_its_multimodal_models(tmp_path: Path) -> None:
    """Without any names in it, which is more than transformers 5 has taken away."""
    for name in ('transformers', 'transformers-5.0.0.dist-info'):
        (tmp_path / name).mkdir()
    (tmp_path / 'transformers/__init__.py').touch()
    (tmp_path / 'transformers-5.0.0.dist-info/METADATA').write_text('Name: transformers\nVersion: 5.0.0\n')
    code = (
        'import sys\nfrom mmrope.commands.models import read_config\nread_config(sys.argv[1])\n'
        'import mmdet.models, mmpretrain.models\nprint(mmdet.models.reid.base_reid.mmpretrain.__name__)'
    )
    root = str(Path(__file__).parents[2])
    environment = os.environ | {'PYTHONPATH': os.pathsep.join([root, str(tmp_path), os.environ.get('PYTHONPATH', '')])}
    config = config_path('mask2former_rope_mixed_swin_s_ade20k.py')
    command = [sys.executable, '-W', 'ignore', '-c', code, config]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ['mmpretrain'], done.stderr[-2000:]
