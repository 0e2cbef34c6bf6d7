import subprocess
import sys

import pytest

import mmrope

BUILD = """
import sys
from mmengine.registry import DefaultScope
from mmdet.utils import register_all_modules as register_det
from mmpretrain.utils import register_all_modules as register_cls
from mmseg.utils import register_all_modules as register_seg
from mmdet.registry import MODELS as DET
from mmpretrain.registry import MODELS as CLS
from mmseg.registry import MODELS as SEG
vit = dict(type='mmrope.RoPEViT', arch=dict(embed_dims=8, depth=1, num_heads=2))
swin = dict(type='mmrope.RoPESwin', arch=dict(embed_dims=8, depths=(1,), num_heads=(2,)), out_indices=(0,))
for registry, register in ((DET, register_det), (SEG, register_seg), (CLS, register_cls), (DET, register_det)):
    register(init_default_scope=True)
    for cfg in (vit, swin, dict(type='mmrope.SimpleFeaturePyramid', in_channels=8)):
        print(type(registry.build(cfg)).__module__)
"""


def run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_builds_from_all_hosts_in_one_process_without_custom_imports() -> None:
    built = [word for word in run(BUILD) if word.startswith('mmrope.')]
    assert built == [f'mmrope.models.{name}' for name in ('vit', 'swin', 'simple_feature_pyramid')] * 4


def test_importing_mmrope_imports_nothing_heavy() -> None:
    code = 'import sys, mmrope; print(*sorted({"torch", "mmengine", "timm", "mmdet", "mmseg"} & set(sys.modules)))'
    assert run(code) == []


@pytest.mark.parametrize('backbone', ['RoPEViT', 'RoPESwin'])
def test_backbone_needs_neither_host_nor_mmcv(backbone: str) -> None:
    code = f'import sys, mmrope; mmrope.{backbone}("tiny"); print(*{{"mmdet", "mmseg", "mmcv"}} & set(sys.modules))'
    assert run(code) == []


WEIGHTS = """
import sys
from mmengine.registry import WEIGHT_INITIALIZERS, build_from_cfg
from mmrope import RoPESwin, RoPEViT
print('mmrope.weights' in sys.modules)
print(type(build_from_cfg(dict(type='mmrope.PretrainedBackbone', checkpoint='x'), WEIGHT_INITIALIZERS)).__module__)
"""


def test_weights_are_found_by_name_and_imported_when_asked_for() -> None:
    built = [word for word in run(WEIGHTS) if word in ('True', 'False') or word.startswith('mmrope.weights')]
    assert built == ['False', 'mmrope.weights.loading']


def test_public_names_are_there() -> None:
    for name in mmrope.__all__:
        assert getattr(mmrope, name)
        assert name in dir(mmrope)
    with pytest.raises(AttributeError, match='RoPEVit'):
        mmrope.RoPEVit  # noqa: B018
