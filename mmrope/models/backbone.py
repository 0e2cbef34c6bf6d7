"""The base class of the backbones."""

import operator
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.model.weight_init import PretrainedInit
from timm.layers import trunc_normal_
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..layers import Block, Windows
from ..layers.windows import Grid


class Backbone(BaseModule):
    """Blocks that can be recomputed in the backward pass, and parts that stay frozen, also after ``train()``.

    A subclass yields what ``frozen_stages`` freezes from ``_frozen()``, says in ``notes()`` what a checkpoint keeps
    beside the weights and in ``weights_may_miss()`` and ``weights_unused()`` how weights of other models may differ
    from its own, and ends its constructor with ``_prepare()``.
    """

    with_cp: bool
    init_cfg: dict | list[dict] | None

    def init_weights(self) -> None:
        """Initialise as ``init_cfg`` says; pretrained weights come last, by ``mmrope.PretrainedBackbone``.

        Raises:
            ValueError: if the weights cannot be had or do not fit; the message names them and what to change.
        """
        given = self.init_cfg
        cfgs = [given] if isinstance(given, dict) else list(given or ())
        pretrained = [{**cfg, 'type': 'mmrope.PretrainedBackbone'} for cfg in cfgs if _is_pretrained(cfg)]
        self.init_cfg = [cfg for cfg in cfgs if not _is_pretrained(cfg)] + pretrained
        try:
            super().init_weights()
        finally:
            self.init_cfg = given

    def train(self, mode: bool = True) -> 'Backbone':
        """Switch training on or off; frozen parts stay in eval mode."""
        super().train(mode)
        self._freeze()
        return self

    def notes(self) -> dict[str, Any]:
        """Return what the weights do not show: heads of each stage, and the grid of an absolute position embedding."""
        raise NotImplementedError

    def weights_may_miss(self, key: str) -> bool:
        """Say whether a parameter of this backbone may keep its initial values, since no weights of others have it."""
        return False

    def weights_unused(self, key: str) -> str | None:
        """Say why a weight that has no place in this backbone is not needed; ``None`` if it should have one."""
        return None

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        """Keep the notes in PyTorch's metadata of a state dict."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if hasattr(destination, '_metadata'):
            destination._metadata.setdefault(prefix[:-1], {}).update(self.notes())

    def _frozen(self) -> Iterator[nn.Module | nn.Parameter]:
        raise NotImplementedError

    def _prepare(self) -> None:
        """Draw weights as DeiT-III and Swin start with, truncated normal and zero biases; then freeze."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self._freeze()

    def _freeze(self) -> None:
        for part in self._frozen():
            part.requires_grad_(False)
            if isinstance(part, nn.Module):
                part.eval()

    def _run(self, block: Block, x: Tensor, windows: Windows, order: Windows | None = None) -> Tensor:
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(block, x, windows, order, use_reentrant=False)
        return block(x, windows, order)


def constant_size(size: Sequence[int]) -> Grid:
    """Return height and width as constants, so that compilers and tracers make a graph for each size.

    How many windows there are and what shapes they have depends on the size. Traced with symbols, a single block took
    torch 2.11 more than half a minute; this may go when it does not.
    """
    height, width = size
    return operator.index(height), operator.index(width)


def to_map(x: Tensor, grid: Grid) -> Tensor:
    """Return the last ``H * W`` tokens of ``(B, P + H * W, C)``, row by row, as contiguous maps ``(B, C, H, W)``.

    MMCV's RoIAlign ignores strides.
    """
    return x[:, x.shape[1] - grid[0] * grid[1] :].transpose(1, 2).unflatten(2, grid).contiguous()


def _is_pretrained(init_cfg: dict) -> bool:
    kind = init_cfg['type']
    return kind is PretrainedInit or (isinstance(kind, str) and kind.rpartition('.')[2] == 'Pretrained')
