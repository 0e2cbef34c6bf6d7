"""What a training sends to trackers, when it stops early, and which checkpoint it keeps."""

import json
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from mmengine.config import Config

from mmrope.commands import watching
from mmrope.commands.main import main
from mmrope.commands.watching import log_to
from tests.helpers.recipes import CONFIGS
from tests.helpers.tiny import isolated

needs_tensorboard = pytest.mark.skipif(find_spec('tensorboard') is None, reason='tensorboard is not installed')
needs_wandb = pytest.mark.skipif(find_spec('wandb') is None, reason='wandb is not installed')


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, 'find_spec', lambda name: object())


@pytest.mark.parametrize(
    ('name', 'switch'),
    [
        ('mask_rcnn_rope_mixed_vit_tiny_digits', 'draw'),
        ('upernet_rope_mixed_vit_tiny_digits', 'draw'),
        ('dino_rope_mixed_vit_b_coco', 'draw'),
        ('classifier_rope_mixed_vit_tiny_single_digits', 'enable'),
    ],
)
@pytest.mark.usefixtures('installed')
def test_trackers_join_the_local_log_and_get_images(name: str, switch: str) -> None:
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    cfg.work_dir = 'work_dirs/fruit'
    log_to(cfg, ['tensorboard', 'wandb'])
    log_to(cfg, ['tensorboard'])
    assert cfg.visualizer.vis_backends == [
        dict(type='LocalVisBackend'),
        dict(type='TensorboardVisBackend'),
        dict(type='WandbVisBackend', init_kwargs=dict(name='fruit')),
    ]
    hook = cfg.default_hooks.visualization
    assert hook[switch] is True and hook.interval == 10


@pytest.mark.usefixtures('installed')
def test_an_interval_of_the_config_is_kept() -> None:
    cfg = Config.fromfile(CONFIGS / 'mask_rcnn_rope_mixed_vit_tiny_digits.py')
    cfg.work_dir, cfg.default_hooks.visualization.interval = 'work', 3
    log_to(cfg, ['tensorboard'])
    assert cfg.default_hooks.visualization.interval == 3


def test_a_missing_package_is_a_sentence_before_anything_is_built(
    tmp_path: Path, write_config: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(watching, 'find_spec', lambda name: None)
    monkeypatch.setattr('mmrope.commands.runner.build_runner', lambda *_, **__: pytest.fail('built'))
    with pytest.raises(SystemExit), isolated():
        main(['train', write_config(tmp_path, 'segmentation'), '--log-to', 'wandb', '--work-dir', str(tmp_path)])
    assert re.search(r'--log-to wandb: .*not installed; pip install wandb', capsys.readouterr().err)
    cfg = Config(dict(work_dir='work'))
    monkeypatch.setattr(watching, 'find_spec', lambda name: object())
    with pytest.raises(ValueError, match='--log-to: the config has no visualizer'):
        log_to(cfg, ['wandb'])


def train(kind: str, tmp_path: Path, write_config: Callable[..., str], *arguments: str) -> Path:
    work = tmp_path / 'work'
    with isolated():
        main(['train', write_config(tmp_path, kind), '--work-dir', str(work), *arguments])
    return work


@needs_tensorboard
@pytest.mark.parametrize('kind', ['detection', 'segmentation'])
def test_tensorboard_gets_losses_metrics_and_images(
    kind: str, tmp_path: Path, write_config: Callable[..., str]
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    work = train(kind, tmp_path, write_config, '--log-to', 'tensorboard', '--cfg-options',
                 'default_hooks.visualization.interval=1', 'default_hooks.logger.interval=1')  # fmt: skip
    (file,) = work.glob('*/vis_data/events.out.*')
    events = EventAccumulator(str(file)).Reload()
    found = events.Tags()
    assert {'loss', 'lr'} <= set(found['scalars'])
    assert {'coco/bbox_mAP', 'mIoU'} & set(found['scalars'])
    assert len(found['images']) >= 1
    assert list(work.glob('*/vis_data/scalars.json'))  # the local log stays


@needs_wandb
def test_wandb_gets_losses_metrics_and_images_offline(
    tmp_path: Path, write_config: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('WANDB_MODE', 'offline')
    import wandb

    sent: list[dict] = []
    real = wandb.Run.log
    monkeypatch.setattr(wandb.Run, 'log', lambda run, data, **kwargs: (sent.append(data), real(run, data, **kwargs)))
    work = train('segmentation', tmp_path, write_config, '--log-to', 'wandb', '--cfg-options',
                 'default_hooks.visualization.interval=1')  # fmt: skip
    keys = {key for data in sent for key in data}
    assert {'loss', 'mIoU'} <= keys and any(isinstance(value, wandb.Image) for data in sent for value in data.values())
    assert list(work.glob('*/vis_data/wandb/offline-run-*'))
    assert wandb.run is None or wandb.finish() is None


def test_the_best_checkpoint_is_kept_beside_the_last(tmp_path: Path, write_config: Callable[..., str]) -> None:
    options = ['train_cfg.max_iters=4', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.save_best=mIoU',
               'default_hooks.checkpoint.max_keep_ckpts=1', 'param_scheduler.0.end=4']  # fmt: skip
    work = train('segmentation', tmp_path, write_config, '--cfg-options', *options)
    names = {path.name for path in work.glob('*.pth')}
    (path,) = work.glob('*/vis_data/scalars.json')
    scores = {line['step']: line['mIoU'] for line in map(json.loads, path.read_text().splitlines()) if 'mIoU' in line}
    best = max(scores, key=lambda step: (scores[step], -step))  # of equal ones the first
    assert names == {'iter_4.pth', f'best_mIoU_iter_{best}.pth'} and set(scores) == {2, 4}


def test_a_training_without_progress_stops_early(tmp_path: Path, write_config: Callable[..., str]) -> None:
    config = tmp_path / 'child.py'
    config.write_text(
        f'_base_ = {write_config(tmp_path, "segmentation")!r}\n'
        "custom_hooks = [dict(type='EarlyStoppingHook', monitor='mIoU', min_delta=90, patience=2)]\n"
        'train_cfg = dict(max_iters=20, val_interval=2)\n'
    )
    work = tmp_path / 'work'
    with isolated():
        main(['train', str(config), '--work-dir', str(work)])
    (path,) = work.glob('*/vis_data/scalars.json')
    steps = [line['step'] for line in map(json.loads, path.read_text().splitlines()) if 'mIoU' in line]
    assert steps == [2, 4, 6]
