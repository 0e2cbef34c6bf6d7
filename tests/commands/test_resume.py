"""A training that resumes under another config, or from less than a whole checkpoint."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner
from torch import nn

from mmrope.checkpoints.loading import load_checkpoint
from mmrope.checkpoints.sources import CheckpointError
from mmrope.commands.errors import Run
from mmrope.commands.runner import build_runner
from tests.helpers.isolation import isolated


@MODELS.register_module(force=True)
class ToyOfResume(BaseModel):
    """Two layers and a loss."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.backbone, self.head = nn.Linear(3, width), nn.Linear(width, 1)

    def forward(self, inputs: torch.Tensor, mode: str) -> dict[str, torch.Tensor]:
        return dict(loss=self.head(self.backbone(inputs)).square().mean())


@DATASETS.register_module(force=True)
class NumbersOfResume:
    """Six samples."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return dict(inputs=torch.full((3,), float(index)))


WARM_UP = dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=4)
Schedules = dict[str, Callable[[int], list[dict[str, Any]]]]
SCHEDULES: Schedules = {
    'poly': lambda end: [dict(type='PolyLR', power=0.9, eta_min=1e-4, begin=0, end=end, by_epoch=False)],
    'steps': lambda end: [WARM_UP, dict(type='MultiStepLR', milestones=[end // 2, end - 1], by_epoch=False)],
    'cosine': lambda end: [WARM_UP, dict(type='CosineAnnealingLR', T_max=end, by_epoch=False)],
    'momentum': lambda end: [WARM_UP, dict(type='LinearMomentum', start_factor=0.5, end=end, by_epoch=False)],
}
EPOCH_SCHEDULES: Schedules = {
    'steps': lambda end: [WARM_UP, dict(type='MultiStepLR', milestones=[end - 1], by_epoch=True)],
    'cosine by iteration': lambda end: [dict(type='CosineAnnealingLR', T_max=end, convert_to_iter_based=True)],
}


class Recorder(Hook):
    """Record of learning rate and momentum of each iteration, and of the settings after the last."""

    def __init__(self) -> None:
        self.rates: list[tuple[float, float]] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        group = runner.optim_wrapper.param_groups[0]
        self.rates.append((group['lr'], group['momentum']))

    def after_train(self, runner: Runner) -> None:
        self.group = {key: value for key, value in runner.optim_wrapper.param_groups[0].items() if key != 'params'}


def train(folder: Path, resume: Path | None = None, epochs: bool = False, **options: Any) -> Recorder:
    """Train as tools/train.py does; ``options`` have ``__`` for the dots of a path."""
    loop = dict(by_epoch=True, max_epochs=2) if epochs else dict(by_epoch=False, max_iters=6)
    loader = dict(
        dataset=dict(type='NumbersOfResume'),
        batch_size=2,
        sampler=dict(type='DefaultSampler' if epochs else 'InfiniteSampler', shuffle=True),
        collate_fn=dict(type='default_collate'),
    )
    cfg = Config(
        dict(
            default_scope='mmengine',
            launcher='none',
            model=dict(type='ToyOfResume'),
            work_dir=str(folder),
            train_dataloader=loader,
            train_cfg=loop,
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
            param_scheduler=[WARM_UP],
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=epochs, interval=1)),
            randomness=dict(seed=0),
            resume=resume is not None,
            load_from=resume and str(resume),
        )
    )
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in options.items()})
    recorder = Recorder()
    with isolated():
        runner = build_runner(cfg, Run(), training=True)
        runner.register_hook(recorder)
        runner.train()
    return recorder


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorder]:
    """A work dir with a checkpoint of each of six iterations, and what was recorded of them."""
    folder = tmp_path_factory.mktemp('trained')
    return folder, train(folder)


@pytest.fixture
def middle(trained: tuple[Path, Recorder], tmp_path: Path) -> Path:
    """A copy of the third of six checkpoints."""
    return Path(shutil.copy(trained[0] / 'iter_3.pth', tmp_path))


def log_of(folder: Path) -> str:
    return max(folder.glob('*/*.log'), key=os.path.getmtime).read_text()


def warnings_of(folder: Path) -> list[str]:
    """The lines about a resumed training in the last log of a work dir."""
    lines = [line for line in log_of(folder).splitlines() if 'WARNING' in line]
    return [line for line in lines if 'pth' in line or 'resume' in line]


@pytest.mark.parametrize(
    'kind, epochs', [*((kind, False) for kind in SCHEDULES), *((kind, True) for kind in EPOCH_SCHEDULES)]
)
def test_a_longer_schedule_is_followed_from_the_start(kind: str, epochs: bool, tmp_path: Path) -> None:
    schedule, short, long = (EPOCH_SCHEDULES[kind], 2, 4) if epochs else (SCHEDULES[kind], 6, 12)
    unit, last = ('train_cfg.max_epochs', 'epoch_2.pth') if epochs else ('train_cfg.max_iters', 'iter_6.pth')
    train(tmp_path / 'short', epochs=epochs, param_scheduler=schedule(short))
    longer = {'epochs': epochs, 'param_scheduler': schedule(long), unit.replace('.', '__'): long}
    whole = train(tmp_path / 'whole', **longer)
    resumed = train(tmp_path / 'resumed', tmp_path / 'short' / last, **longer)
    assert len(whole.rates) == 12 and len(set(whole.rates)) > 2
    assert resumed.rates == whole.rates[6:]
    (line,) = warnings_of(tmp_path / 'resumed')
    assert f'{unit} {short} -> {long}' in line


def test_epochs_of_another_length_have_their_schedule(tmp_path: Path) -> None:
    """The data set has grown; the config is the same."""
    schedule = EPOCH_SCHEDULES['cosine by iteration'](4)
    train(tmp_path / 'short', epochs=True, param_scheduler=schedule)
    grown = dict(epochs=True, param_scheduler=schedule, train_cfg__max_epochs=4)
    with mock.patch.object(NumbersOfResume, '__len__', lambda self: 10):
        whole = train(tmp_path / 'whole', **grown)
        resumed = train(tmp_path / 'resumed', tmp_path / 'short' / 'epoch_2.pth', **grown)
    assert resumed.rates == whole.rates[10:] and len(resumed.rates) == 10


def test_the_same_config_is_resumed_without_a_warning(
    middle: Path, trained: tuple[Path, Recorder], tmp_path: Path
) -> None:
    resumed = train(tmp_path / 'resumed', middle)
    assert resumed.rates == trained[1].rates[3:]
    assert warnings_of(tmp_path / 'resumed') == []


@pytest.mark.parametrize(
    ('path', 'value', 'key'),
    [
        ('optimizer__lr', 0.5, 'initial_lr'),
        ('optimizer__momentum', 0.1, 'momentum'),
        ('optimizer__weight_decay', 0.3, 'weight_decay'),
        ('optimizer__nesterov', True, 'nesterov'),
    ],
)
def test_settings_of_the_optimiser_are_those_of_the_config(
    path: str, value: Any, key: str, middle: Path, trained: tuple[Path, Recorder], tmp_path: Path
) -> None:
    resumed = train(tmp_path / 'resumed', middle, **{f'optim_wrapper__{path}': value})
    assert resumed.group[key] == value
    factor = value / 0.01 if key == 'initial_lr' else 1
    assert [rate for rate, _ in resumed.rates] == pytest.approx([factor * rate for rate, _ in trained[1].rates[3:]])
    (line,) = warnings_of(tmp_path / 'resumed')
    assert f'optim_wrapper.{path.replace("__", ".")}' in line and f'-> {value}' in line


def test_a_scaled_learning_rate_is_that_of_the_batch_now(middle: Path, tmp_path: Path) -> None:
    scaled = dict(auto_scale_lr=dict(enable=True, base_batch_size=2), train_dataloader__batch_size=1)
    resumed = train(tmp_path / 'resumed', middle, **scaled)
    assert resumed.group['initial_lr'] == 0.005
    assert 'train_dataloader.batch_size 2 -> 1' in warnings_of(tmp_path / 'resumed')[0]


def test_a_checkpoint_of_an_iteration_loop_has_no_epochs(middle: Path, tmp_path: Path) -> None:
    """Three iterations are one epoch; MMEngine counts none."""
    resumed = train(tmp_path / 'resumed', middle, epochs=True)
    assert len(resumed.rates) == 6
    said = ''.join(warnings_of(tmp_path / 'resumed'))
    assert [
        word for word in ('of iteration 3', 'epoch 0', 'epoch 1', 'by_epoch False -> True') if word not in said
    ] == []


def edited(path: Path, edit: Callable[[dict[str, Any]], Any]) -> Path:
    """Write a checkpoint beside another, with a change."""
    checkpoint = load_checkpoint(path)
    edit(checkpoint)
    torch.save(checkpoint, path.with_name('edited.pth'))
    return path.with_name('edited.pth')


@pytest.mark.parametrize('part', ['optimizer', 'param_schedulers', 'message_hub'])
def test_a_part_that_the_checkpoint_lacks_is_named_and_the_schedule_goes_on(
    part: str, middle: Path, trained: tuple[Path, Recorder], tmp_path: Path
) -> None:
    """Best checkpoints lack the first two, published ones all."""
    resumed = train(tmp_path / 'resumed', edited(middle, lambda checkpoint: checkpoint.pop(part)))
    assert resumed.rates == trained[1].rates[3:]
    (line,) = warnings_of(tmp_path / 'resumed')
    assert f'edited.pth has no {part}: ' in line


def test_the_seed_and_the_number_of_processes(middle: Path, tmp_path: Path) -> None:
    assert load_checkpoint(middle)['meta']['processes'] == 1
    checkpoint = edited(middle, lambda checkpoint: checkpoint['meta'].update(processes=8))
    train(tmp_path / 'resumed', checkpoint, randomness__seed=5)
    line = warnings_of(tmp_path / 'resumed')[-1]
    assert 'randomness.seed 0 -> 5' in line and 'processes 8 -> 1' in line and 'except for the seed' in line
    assert load_checkpoint(tmp_path / 'resumed' / 'iter_6.pth')['meta']['seed'] == 0


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(optim_wrapper__optimizer=dict(_delete_=True, type='AdamW', lr=0.1)), 'type SGD -> AdamW'),
        (dict(optim_wrapper__paramwise_cfg=dict(bias_lr_mult=2.0)), 'groups of 4 parameters -> 1, 1, 1'),
        (dict(model__width=5), 'does not fit the model of the config'),
    ],
)
def test_another_optimiser_or_model_is_refused(
    options: dict[str, Any], words: str, middle: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=f'iter_3.pth.*{words}'):
        train(tmp_path / 'resumed', middle, **options)


def test_weights_alone_are_refused(tmp_path: Path) -> None:
    torch.save(ToyOfResume().state_dict(), tmp_path / 'weights.pth')
    with pytest.raises(CheckpointError, match='weights.pth has no iteration.*load_from'):
        train(tmp_path / 'resumed', tmp_path / 'weights.pth')


def test_the_config_of_a_checkpoint_is_not_run(middle: Path, tmp_path: Path) -> None:
    """MMEngine runs ``meta['config']``, which its older versions wrote."""
    code = f'import os\nos.mkdir({str(tmp_path / "made")!r})\ngpu_ids = [0, 1]'
    train(
        tmp_path / 'resumed',
        edited(middle, lambda checkpoint: checkpoint['meta'].update(config=code, cfg=code)),
    )
    assert not (tmp_path / 'made').exists()


@pytest.mark.parametrize(('epochs', 'last'), [(False, 'iter_6.pth'), (True, 'epoch_2.pth')])
def test_a_finished_training_has_nothing_left_to_train(epochs: bool, last: str, tmp_path: Path) -> None:
    train(tmp_path, epochs=epochs)
    assert train(tmp_path / 'resumed', tmp_path / last, epochs=epochs).rates == []
    assert 'Nothing is left to train' in log_of(tmp_path / 'resumed')
