"""A family from a config that inherits its ``_base_/backbones`` file: training, test and every command after them."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import mmrope
from mmrope import config_path
from mmrope.commands.main import main
from mmrope.datasets.digits import make_digits
from mmrope.weights import load_pretrained
from tests.helpers.tiny import isolated

# Two blocks of 32 channels, one of them in windows, with all else as the family has it.
CONFIG = """
_base_ = [{bases}]
model = dict(
    backbone=dict(
        dict(_base_.backbone, arch=dict(embed_dims=32, depth=2, num_heads=2), init_cfg=None),
        img_size=64,
        patch_size=8,
        window_size=8,
        global_attn_indexes=(1,),
    ),
    neck=dict(
        _delete_=True,
        type='mmrope.SimpleFeaturePyramid',
        in_channels=32,
        out_channels=_base_.channels,
        scales=(2, 1, 0.5),
        num_outs=3,
        norm_cfg=_base_.norm_cfg,
    ),
)
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)
train_cfg = dict(max_iters=3, val_interval=3)
default_hooks = dict(checkpoint=dict(interval=3), logger=dict(interval=1))
"""
BASES = (
    'models/mask_rcnn_digits.py',
    'datasets/digits_instance.py',
    'schedules/digits.py',
    'detection_runtime.py',
)
BACKBONES = [
    'lingbot_vit_s',
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ('eva02_vit_s', 'pe_spatial_vit_b', 'sam3_vit_l', 'sbb_vit_b', 'sapiens2_vit_b')
    ),
]


@pytest.fixture(scope='module', params=BACKBONES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A config and the checkpoint of three iterations."""
    folder = tmp_path_factory.mktemp(request.param)
    data, config, work_dir = folder / 'digits', folder / 'it.py', folder / 'run'
    make_digits(data, images=4, val_images=2, progress=False)
    bases = [config_path(f'_base_/{name}') for name in (f'backbones/{request.param}.py', *BASES)]
    config.write_text(CONFIG.format(bases=', '.join(map(repr, bases))))
    with isolated():
        main(['train', str(config), '--work-dir', str(work_dir), '--data-root', str(data)])
    return SimpleNamespace(
        config=str(config), data=str(data), folder=folder, work_dir=work_dir, checkpoint=str(work_dir / 'iter_3.pth')
    )


@pytest.fixture(autouse=True)
def isolated_test() -> Iterator[None]:
    with isolated():
        yield


def test_it_learns_and_tests(trained: SimpleNamespace) -> None:
    scalars = next(trained.work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()
    losses = [entry['loss'] for entry in map(json.loads, scalars) if 'loss' in entry]
    assert len(losses) == 3 and all(loss == loss for loss in losses)
    out = trained.folder / 'tested'
    main(['test', trained.config, trained.checkpoint, '--work-dir', str(out), '--data-root', trained.data])
    (metrics,) = (json.loads(path.read_text()) for path in out.glob('*/*.json'))
    assert 'coco/bbox_mAP' in metrics


def test_its_checkpoint_is_of_mmrope(trained: SimpleNamespace) -> None:
    saved = torch.load(trained.checkpoint, weights_only=False)['state_dict']
    from mmengine.config import Config

    settings = dict(Config.fromfile(trained.config).model.backbone)
    backbone = getattr(mmrope, settings.pop('type').removeprefix('mmrope.'))(**settings)
    report = load_pretrained(backbone, trained.checkpoint)
    assert not report.renamed and not report.assumed
    assert all(torch.equal(value, saved[f'backbone.{key}']) for key, value in backbone.state_dict().items())


def test_attention_is_analysed(trained: SimpleNamespace) -> None:
    image, out = next(Path(trained.data, 'images', 'validation').iterdir()), trained.folder / 'attention'
    arguments = ['--images', str(image), '--query', '20', '30', '--out', str(out), '--device', 'cpu']
    main(['attention', trained.config, trained.checkpoint, *arguments])
    (model,) = json.loads((out / 'attention.json').read_text())
    windowed, everywhere = model['blocks']
    assert windowed['largest_windows'] == [[8, 8]] and everywhere['largest_windows'] == [[16, 16]]
    assert windowed['uniform_distance_px'] < everywhere['uniform_distance_px']


def test_frequencies_are_analysed(trained: SimpleNamespace) -> None:
    out = trained.folder / 'frequencies'
    main(['frequencies', trained.config, trained.checkpoint, '--out', str(out), '--grid', '16', '--device', 'cpu'])
    result = json.loads((out / 'frequencies.json').read_text())
    theta = 100 if re.search('lingbot|sapiens2', trained.folder.name) else 10000
    assert result['axial_theta'] == theta
    assert set(result['reconstruction']['missed_variance']['spot']) == {'axial'}


def test_flops_are_counted(trained: SimpleNamespace) -> None:
    out = trained.folder / 'flops.json'
    main(['flops', trained.config, '--size', '128', '96x160', '--out', str(out), '--device', 'cpu'])
    costs = json.loads(out.read_text())['costs']
    assert [cost['size'] for cost in costs] == [[128, 128], [96, 160]]
    assert costs[0]['rotation_flops'] == 2 * 6 * 256 * 32


def test_it_is_exported(trained: SimpleNamespace) -> None:
    out = str(trained.folder / 'it.onnx')
    main(['export', trained.config, out, '--checkpoint', trained.checkpoint, '--size', '128'])


def test_it_is_tested_at_other_sizes(trained: SimpleNamespace) -> None:
    out = trained.folder / 'sweep'
    sizes = ['--sizes', '96', '128', '--work-dir', str(out), '--data-root', trained.data]
    main(['sweep', trained.config, trained.checkpoint, *sizes])
    table = next(out.glob('*.csv'))
    assert len(list(csv.DictReader(table.open()))) == 2
