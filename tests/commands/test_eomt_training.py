"""EoMT from a config to its score: a few scenes learned by heart, and a training resumed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mmrope import config_path
from mmrope.commands.main import main
from mmrope.datasets.digits import make_digits
from tests.helpers.isolation import isolated

# The config for the digits, on a few scenes as they are.
CONFIG = """
_base_ = {base!r}
data_root = {data!r}
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
folders = dict(img_path='images/training', seg_map_path='annotations/training')
train_dataloader = dict(
    batch_size={batch}, num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root, pipeline=pipeline)
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, data_prefix=folders, pipeline=pipeline),
)
test_dataloader = val_dataloader
train_cfg = dict(max_iters={length}, val_interval={length})
default_hooks = dict(checkpoint=dict(interval={length}, max_keep_ckpts=3), logger=dict(interval=1))
param_scheduler = {schedule}
"""
WARM_UP_AND_DOWN = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=15),
    dict(type='LinearLR', start_factor=1.0, end_factor=0.0, by_epoch=False, begin=15, end=150),
]
STAGED = [dict(type='mmrope.StagedPolyLR', warmup=(1, 2), by_epoch=False, begin=0, end=6)]
LATE = 'optim_wrapper = dict(paramwise_cfg=dict(custom_keys={"backbone.": dict(late=True)}))\n'


@pytest.fixture(scope='module')
def scenes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Eight scenes of 64 x 64 to train on."""
    folder = tmp_path_factory.mktemp('scenes') / 'digits'
    make_digits(folder, images=8, val_images=1, size=(64, 64))
    return f'{folder}/'


def config(folder: Path, scenes: str, length: int, schedule: list[dict[str, Any]], batch: int, more: str = '') -> str:
    path = folder / 'config.py'
    base = str(config_path('eomt_rope_mixed_vit_tiny_digits'))
    path.write_text(
        CONFIG.format(base=base, data=scenes, length=length, schedule=schedule, batch=batch) + more, encoding='utf-8'
    )
    return str(path)


def train(path: str, folder: Path, *options: str) -> None:
    with isolated():
        main(['train', path, '--work-dir', str(folder), *options])


def lines(folder: Path) -> list[dict[str, Any]]:
    """What each iteration and validation of a work dir logged, in order."""
    logs = sorted(folder.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for log in logs for line in log.read_text().splitlines()]


@pytest.mark.slow
def test_eight_scenes_are_learned_by_heart(scenes: str, tmp_path: Path) -> None:
    path = config(tmp_path, scenes, 150, WARM_UP_AND_DOWN, batch=8)
    train(path, tmp_path / 'run')
    score = lines(tmp_path / 'run')[-1]['mIoU']
    print(f'mIoU {score}')
    assert score > 90


def test_a_resumed_training_goes_on_as_if_it_had_not_stopped(scenes: str, tmp_path: Path) -> None:
    """The steps of the masks, both warm-ups and their decay follow from the iteration and the length."""
    path = config(tmp_path, scenes, 6, STAGED, 2, LATE)
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    every = ['--cfg-options', 'default_hooks.checkpoint.interval=2', 'train_cfg.val_interval=10']
    train(path, whole, *every)
    parts.mkdir()
    (parts / 'iter_4.pth').write_bytes((whole / 'iter_4.pth').read_bytes())
    (parts / 'last_checkpoint').write_text(str(parts / 'iter_4.pth'))
    train(path, parts, '--resume', *every)

    def steps(folder: Path) -> list[dict[str, Any]]:
        return [{k: v for k, v in line.items() if 'time' not in k and k != 'memory'} for line in lines(folder)]

    assert steps(parts) == steps(whole)[4:]
    late = [line['lr'] == 0 for line in steps(whole) if 'lr' in line]
    assert late == [True, True, *[False] * 4]  # the backbone waits for the heads, and starts from zero
    ends = [torch.load(folder / 'iter_6.pth', weights_only=False)['state_dict'] for folder in (whole, parts)]
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())
