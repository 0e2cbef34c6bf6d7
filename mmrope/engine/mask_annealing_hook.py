"""A hook that trains the masks of EoMT's attention away."""

from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..models import EoMT
from ..registry import HOOKS
from .complete_checkpoint_hook import unwrapped


@HOOKS.register_module()
class MaskAnnealingHook(Hook):
    """Hook that lowers the ``mask_probabilities`` of :class:`mmrope.models.EoMT` from 1 to 0, block after block.

    A block's probability is 1 until its ``begin`` and 0 from its ``end`` on. Between, it is ``(1 - t) ** power``, where
    ``t`` is the share of the way from ``begin`` to ``end``. It depends on the number of the iteration alone, so a
    resumed training goes on exactly.

    By default block ``i`` of ``n`` begins at ``N / 6 * (1 + 3 * i / (n - 1))``, where ``N`` is the length of the
    training, and ends ``N / 6`` later, as in the published configs for DINOv2 of *Encoder-only Mask Transformer*
    (arXiv 2503.19108).

    Args:
        begin: for each open block, the iteration at which the probability begins to fall: an int counts iterations, a
            float from 0 to 1 is a share of the training. ``None`` for the default.
        end: as ``begin``, for the iteration from which on the probability is 0; ``None`` for the default.
        power: exponent of the fall.

    Raises:
        ValueError: if an argument is out of range, there is not one begin and end for each open block, or the model
            has no EoMT.
    """

    def __init__(
        self, begin: Sequence[float] | None = None, end: Sequence[float] | None = None, power: float = 0.9
    ) -> None:
        for name, values in (('begin', begin), ('end', end)):
            if values is not None and not _are_times(values):
                raise ValueError(
                    f'{name} must be None or hold ints of at least 0 or floats from 0 to 1, but got {values!r}'
                )
        if not isinstance(power, (int, float)) or not power > 0:
            raise ValueError(f'power must be a positive number, but got {power!r}')
        self.begin = begin
        self.end = end
        self.power = power

    def before_train(self, runner: Runner) -> None:
        """Find the modules, and count the iterations of the training."""
        self.modules = [module for module in unwrapped(runner.model).modules() if isinstance(module, EoMT)]
        if not self.modules:
            raise ValueError(f'model must hold an mmrope.models.EoMT, but got {type(unwrapped(runner.model)).__name__}')
        blocks = len(self.modules[0].mask_probabilities)
        begins, ends = self._times(blocks, runner.max_iters)
        self.spans = [*zip(begins, ends)]
        if any(begin > end for begin, end in self.spans):
            raise ValueError(f'begin must not be after end for any block, but got {begins} and {ends} in iterations')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Set the probabilities of the iteration."""
        for module in self.modules:
            module.mask_probabilities = [self._probability(runner.iter, *span) for span in self.spans]

    def _times(self, blocks: int, length: int) -> tuple[list[float], list[float]]:
        """Return begin and end of each block, in iterations."""
        default = [(1 + 3 * i / max(blocks - 1, 1)) / 6 for i in range(blocks)]
        begin = default if self.begin is None else self.begin
        end = [start + 1 / 6 for start in default] if self.end is None else self.end
        for name, values in (('begin', begin), ('end', end)):
            if len(values) != blocks:
                raise ValueError(f'{name} must hold {blocks} values, one for each open block, but got {values!r}')
        return _in_iterations(begin, length), _in_iterations(end, length)

    def _probability(self, iteration: int, begin: float, end: float) -> float:
        if iteration < begin:
            return 1.0
        return 0.0 if iteration >= end else (1 - (iteration - begin) / (end - begin)) ** self.power


def _in_iterations(times: Sequence[float], length: int) -> list[float]:
    return [time * length if isinstance(time, float) else time for time in times]


def _are_times(values: Any) -> bool:
    if not isinstance(values, Sequence) or isinstance(values, str):
        return False
    return all(0 <= time <= 1 if isinstance(time, float) else isinstance(time, int) and time >= 0 for time in values)
