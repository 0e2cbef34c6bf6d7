"""A learning rate schedule that warms up heads first and pretrained parameters after them."""

from collections.abc import Sequence
from typing import Any

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler

from ..registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class StagedPolyLR(LRSchedulerMixin, _ParamScheduler):
    """Learning rate with a warm-up for each of two kinds of parameters, and a polynomial decay to zero after it.

    The schedule of EoMT (Kerssies et al., *Your ViT is Secretly an Image Segmentation Model*, CVPR 2025, arXiv
    2503.19108). Heads rise from zero over ``warmup[0]`` steps. Groups of parameters marked ``late`` have a rate of zero
    for that long, and then rise over ``warmup[1]`` steps. Mark them where the groups are made, as with
    ``custom_keys={'backbone.': dict(late=True)}`` of :class:`LayerDecayOptimWrapperConstructor`. The rates follow from
    the step alone, so no other schedule may set them in these steps.

    Args:
        optimizer: optimiser or its wrapper, which MMEngine's runner gives.
        warmup: steps of the warm-up of heads, and of the one of late groups after it.
        power: exponent of the decay.
        begin: first step of the schedule.
        end: step at which both kinds reach zero, the length of the training.
        others: ``by_epoch``, ``last_step`` and ``verbose``, as MMEngine's schedulers take them.

    Raises:
        ValueError: if the warm-ups are no two non-negative ints, or do not end before the schedule.
    """

    def __init__(
        self,
        optimizer: Any,
        warmup: Sequence[int],
        power: float = 0.9,
        begin: int = 0,
        *,
        end: int,
        **others: Any,
    ) -> None:
        steps = end - begin
        whole = isinstance(warmup, Sequence) and all(isinstance(part, int) and part >= 0 for part in warmup)
        if not whole or len(warmup) != 2 or sum(warmup) >= steps:
            raise ValueError(
                f'warmup must be two ints of at least 0 with a sum below end - begin = {steps}, but got {warmup!r}'
            )
        self.warmup, self.power, self.total_iters = tuple(warmup), power, steps
        super().__init__(optimizer, begin=begin, end=end, **others)

    def _get_value(self) -> list[float]:
        """Return the rate of each group at ``last_step``."""
        factors = [self._factor(0, self.warmup[0]), self._factor(*self.warmup)]
        late = [bool(group.get('late')) for group in self.optimizer.param_groups]
        return [base * factors[is_late] for base, is_late in zip(self.base_values, late, strict=True)]

    def _factor(self, wait: int, rise: int) -> float:
        """Return the share of the full rate of parameters that wait, and then rise, for so many steps."""
        step = self.last_step - wait
        if step < 0:
            return 0.0
        if step < rise:
            return step / rise
        return (1 - (step - rise) / (self.total_iters - wait - rise)) ** self.power
