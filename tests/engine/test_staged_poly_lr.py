"""The schedule of EoMT: heads warm up first, what is pretrained after them, and both decay to zero at the end."""

import re
from typing import Any

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from mmrope import RoPEViT
from mmrope.commands.checks.schedules import schedule_faults
from mmrope.commands.resume import advance
from mmrope.engine import StagedPolyLR

N = 4000
# Steps, and the shares of the full rate at them that heads and late groups have: by hand, from the paper's code.
TABLE = {
    0: (0, 0),
    1: (1 / 500, 0),
    250: (0.5, 0),
    500: (1, 0),
    501: ((1 - 1 / 3500) ** 0.9, 1 / 1000),
    1000: ((6 / 7) ** 0.9, 0.5),
    1500: ((5 / 7) ** 0.9, 1),
    2750: ((5 / 14) ** 0.9, 0.5**0.9),
    3999: ((1 / 3500) ** 0.9, (1 / 2500) ** 0.9),
}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = RoPEViT(dict(embed_dims=16, depth=2, num_heads=2), final_norm=True)
        self.head = nn.Linear(16, 2)


def optimizer(**custom_keys: dict[str, Any]) -> Any:
    cfg = dict(
        type='OptimWrapper',
        constructor='mmrope.LayerDecayOptimWrapperConstructor',
        optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.2),
        paramwise_cfg=dict(decay_rate=0.5, full_rate_blocks=1, custom_keys=custom_keys),
    )
    return build_optim_wrapper(Model(), cfg)


def build(wrapper: Any, **options: Any) -> StagedPolyLR:
    cfg = dict(type='mmrope.StagedPolyLR', warmup=(500, 1000), by_epoch=False, end=N, **options)
    return PARAM_SCHEDULERS.build(cfg, default_args=dict(optimizer=wrapper, epoch_length=10))


def rates(wrapper: Any) -> list[float]:
    return [group['lr'] for group in wrapper.param_groups]


def test_heads_warm_up_first_and_late_groups_after_them() -> None:
    wrapper = optimizer(**{'backbone.': dict(late=True)})
    full = rates(wrapper)
    late = [bool(group.get('late')) for group in wrapper.param_groups]
    assert set(late) == {True, False} and len(set(full)) > 1
    scheduler = build(wrapper)
    for step in range(N):
        if step in TABLE:
            expected = [rate * TABLE[step][is_late] for rate, is_late in zip(full, late)]
            assert rates(wrapper) == pytest.approx(expected, rel=1e-12), step
        advance([scheduler], 1)
    before = rates(wrapper)
    advance([scheduler], 3)
    assert rates(wrapper) == before  # the training has ended


def test_without_marks_all_warm_up_as_heads() -> None:
    wrapper = optimizer()
    full = rates(wrapper)
    advance([build(wrapper)], 250)
    assert rates(wrapper) == pytest.approx([0.5 * rate for rate in full])


def test_a_schedule_may_begin_later() -> None:
    wrapper = optimizer()
    full = rates(wrapper)
    scheduler = build(wrapper, begin=100)
    assert rates(wrapper) == full
    advance([scheduler], 350)
    assert rates(wrapper) == pytest.approx([0.5 * rate for rate in full])


@pytest.mark.parametrize('stop', [0, 300, 501, 3000])
def test_a_resumed_schedule_continues_as_if_nothing_had_happened(stop: int) -> None:
    wrappers = [optimizer(**{'backbone.': dict(late=True)}) for _ in range(2)]
    whole, first = map(build, wrappers)
    advance([whole, first], stop)
    state = first.state_dict(), wrappers[1].state_dict()
    wrapper = optimizer(**{'backbone.': dict(late=True)})
    resumed = build(wrapper)
    wrapper.load_state_dict(state[1])
    resumed.load_state_dict(state[0])
    assert rates(wrapper) == rates(wrappers[0])
    for _ in range(400):
        advance([whole, resumed], 1)
        assert rates(wrapper) == rates(wrappers[0])


def test_steps_of_zero_rate_leave_late_parameters_alone() -> None:
    model = Model()
    cfg = dict(
        constructor='mmrope.LayerDecayOptimWrapperConstructor',
        optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.2),
        paramwise_cfg=dict(custom_keys={'backbone.': dict(late=True)}),
    )
    wrapper = build_optim_wrapper(model, cfg)
    scheduler = build(wrapper)
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    for _ in range(3):
        for param in model.parameters():
            param.grad = torch.ones_like(param)
        wrapper.step()
        advance([scheduler], 1)
    moved = {name for name, param in model.named_parameters() if not torch.equal(param, before[name])}
    assert moved == {'head.weight', 'head.bias'}


def test_another_length_of_the_training_is_noticed() -> None:
    scheduler = build(optimizer())
    assert not list(schedule_faults([scheduler], N, 1))
    (fault,) = schedule_faults([scheduler], N - 1, 1)
    assert fault.startswith(f'param_scheduler[0], StagedPolyLR, ends at iteration {N}, and the training ends at 3999')
    (fault,) = schedule_faults([scheduler], N + 1, 1)
    assert 'is not scheduled for the 1 after it' in fault


def test_late_parameters_may_begin_at_the_full_rate() -> None:
    wrapper = optimizer(**{'backbone.': dict(late=True)})
    scheduler = StagedPolyLR(wrapper, (2, 0), end=N, by_epoch=False)
    factors = []
    for _ in range(3):
        factors.append([group['lr'] / group['initial_lr'] for group in wrapper.param_groups])
        advance([scheduler], 1)
    assert set(factors[0]) == {0.0} and set(factors[2]) == {1.0}


@pytest.mark.parametrize('warmup', [(500,), (-1, 2), (2000, 2000), (0.5, 1), 3])
def test_wrong_warm_ups_are_named(warmup: Any) -> None:
    with pytest.raises(ValueError, match=rf'warmup must be .* end - begin = {N}, but got {re.escape(repr(warmup))}'):
        StagedPolyLR(optimizer(), warmup, end=N)


def test_its_name_resolves_under_any_scope() -> None:
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmseg'):
        assert isinstance(build(optimizer()), StagedPolyLR)
