"""The last blocks of a backbone, handed to a head that runs them on the tokens and its own queries."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from ..layers.windows import Grid


class OpenBlock(Protocol):
    """A block that a head runs, with global attention; the backbone's ``with_cp`` holds for it."""

    def __call__(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Apply the block.

        Args:
            x: tokens, ``(B, Q + P + H * W, C)``: ``Q`` of the head, then those of :class:`OpenTokens`.
            mask: as for :class:`mmrope.layers.Attention`.
        """


class OpenTokens(NamedTuple):
    """Tokens before a backbone's open blocks, and what a head needs to go on with them.

    The blocks and the norm stay the backbone's: its weights, its learning rates, its frozen parts.

    Attributes:
        x: prefix tokens, then those of the grid row by row, ``(B, P + H * W, C)``.
        grid: ``(H, W)``.
        blocks: the open blocks, in order.
        norm: the backbone's final norm, which no block applies.
    """

    x: Tensor
    grid: Grid
    blocks: Sequence[OpenBlock]
    norm: nn.Module


def split_open(outs: Sequence[Any]) -> tuple[tuple[Tensor, ...], OpenTokens | None]:
    """Split the output of a backbone into its maps and the open tokens at its end, if there are any."""
    if outs and isinstance(outs[-1], OpenTokens):
        return tuple(outs[:-1]), outs[-1]
    return tuple(outs), None
