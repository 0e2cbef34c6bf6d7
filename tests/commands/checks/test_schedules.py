"""Schedules that do not fit the length of their training are found, and no others."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.optim import OptimWrapper, _ParamScheduler
from mmengine.registry import PARAM_SCHEDULERS

from mmrope.commands.checks.schedules import CheckSchedules, schedule_faults


def build(*configs: dict[str, Any]) -> list[_ParamScheduler]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    return [PARAM_SCHEDULERS.build({**cfg, 'optimizer': OptimWrapper(optimizer)}) for cfg in configs]


WARM_UP = dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000)


@pytest.mark.parametrize(
    ('config', 'iterations', 'epochs', 'words'),
    [
        (WARM_UP, 108, 12, ['LinearLR', 'iteration 1000', '108', 'full value']),
        (dict(WARM_UP, end=10**9), 108, 12, ['LinearLR', 'no end', '108', 'full value']),
        (dict(type='ConstantLR', factor=0.3, by_epoch=False, end=500), 108, 12, ['ConstantLR', '500', '108']),
        (dict(type='MultiStepLR', milestones=[8, 163889, 177546], by_epoch=False), 300, 1, ['163889, 177546', '300']),
        (dict(type='MultiStepLR', milestones=[8, 11]), 90, 6, ['epoch 8, 11', '6']),
        (dict(type='PolyLR', begin=1500, end=160000, by_epoch=False), 1000, 1, ['begins at iteration 1500', '1000']),
        (dict(type='PolyLR', end=160000, by_epoch=False), 1000, 1, ['160000', '1000', 'last value']),
        (dict(type='PolyLR', end=6, by_epoch=False), 12, 1, ['PolyLR', 'ends at iteration 6', '12', 'the 6 after']),
        (dict(type='CosineAnnealingLR', T_max=36), 90, 12, ['CosineAnnealingLR', 'epoch 36', '12']),
        (dict(type='LinearMomentum', start_factor=1.0, end_factor=0.1, end=3), 90, 12, ['epoch 3', 'momentum']),
        (dict(type='OneCycleLR', eta_max=1.0, total_steps=200, by_epoch=False), 100, 1, ['200', '100']),
        (dict(type='PolyLR', end=160000), 160000, 1, ['epoch 160000', 'ends at 1:']),  # counts epochs by mistake
    ],
)
def test_a_schedule_that_cannot_work_is_named_with_its_numbers(
    config: dict[str, Any], iterations: int, epochs: int, words: list[str]
) -> None:
    (fault,) = schedule_faults(build(config), iterations, epochs)
    assert all(word in fault for word in ['param_scheduler[0]', *words]), fault


@pytest.mark.parametrize(
    ('configs', 'iterations', 'epochs'),
    [
        ([WARM_UP, dict(type='MultiStepLR', milestones=[8, 11], end=12)], 5000, 12),
        ([WARM_UP, dict(type='MultiStepLR', milestones=[900, 1100], end=99999, by_epoch=False)], 1200, 1),
        ([WARM_UP], 5000, 1),
        ([dict(WARM_UP, end=5), dict(type='PolyLR', begin=5, end=12, by_epoch=False)], 12, 1),
        ([dict(type='CosineAnnealingLR', T_max=6, end=6), dict(type='ConstantLR', factor=1, begin=6)], 99, 12),
        ([dict(type='ExponentialLR', gamma=0.9), dict(type='StepLR', step_size=3)], 99, 12),
        ([dict(type='ConstantLR', factor=1.0)], 99, 12),
    ],
)
def test_schedules_that_fit_are_left_alone(configs: list[dict[str, Any]], iterations: int, epochs: int) -> None:
    assert list(schedule_faults(build(*configs), iterations, epochs)) == []


def test_all_are_said_before_training() -> None:
    schedulers, said = build(WARM_UP, dict(type='MultiStepLR', milestones=[99])), []
    logger = SimpleNamespace(warning=said.append)
    for found in (schedulers, {'optimizer': schedulers}, None):
        CheckSchedules().before_train(
            SimpleNamespace(param_schedulers=found, max_iters=108, max_epochs=12, logger=logger)
        )
    assert len(said) == 4
