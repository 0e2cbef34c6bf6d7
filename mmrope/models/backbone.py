"""Base class of the backbones."""

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
    """Base of the backbones: recomputes blocks in the backward pass, and keeps frozen parts frozen after ``train()``.

    A subclass ends its constructor with ``_prepare()``. It yields the parts to freeze from ``_frozen()`` and returns
    from ``notes()`` what a checkpoint stores beside the weights. ``weights_may_miss()`` and ``weights_unused()`` say
    how the weights of other models may differ from its own.
    """

    with_cp: bool
    init_cfg: dict | list[dict] | None

    def init_weights(self) -> None:
        """Initialise as ``init_cfg`` says; ``mmrope.PretrainedBackbone`` loads pretrained weights last.

        Raises:
            ValueError: if weights cannot be fetched or do not fit; the message names them and what to change.
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
        """Switch training mode on or off; frozen parts stay in eval mode."""
        super().train(mode)
        self._freeze()
        return self

    def notes(self) -> dict[str, Any]:
        """Return what the weights do not show: heads per stage, and the rest as the backbone has it."""
        raise NotImplementedError

    def weights_may_miss(self, key: str) -> bool:
        """Return whether a parameter may keep its initial values, since the weights of other models lack it."""
        return False

    def weights_unused(self, key: str) -> str | None:
        """Return why this backbone can ignore a weight that it has no parameter for; ``None`` if it cannot."""
        return None

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        """Store the notes in PyTorch's metadata of the state dict."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if hasattr(destination, '_metadata'):
            destination._metadata.setdefault(prefix[:-1], {}).update(self.notes())

    def _frozen(self) -> Iterator[nn.Module | nn.Parameter]:
        raise NotImplementedError

    def _prepare(self) -> None:
        """Initialise as DeiT-III and Swin do, with truncated normal weights and zero biases; then freeze."""
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

    def _run(
        self, block: Block, x: Tensor, windows: Windows, order: Windows | None = None, mask: Tensor | None = None
    ) -> Tensor:
        masked: dict[str, Any] = {} if mask is None else {'mask': mask}  # blocks of users need not know of masks
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(block, x, windows, order, use_reentrant=False, **masked)
        return block(x, windows, order, **masked)


def constant_size(size: Sequence[int]) -> Grid:
    """Return height and width as constants, so that compilers and tracers make one graph per size.

    The number and the shapes of windows depend on the size. With symbolic sizes, torch 2.11 took more than half a
    minute to trace a single block; this function may go when that is fast.
    """
    height, width = size
    return operator.index(height), operator.index(width)


def to_map(x: Tensor, grid: Grid) -> Tensor:
    """Return the last ``H * W`` tokens of ``(B, P + H * W, C)``, row by row, as contiguous maps ``(B, C, H, W)``.

    They are contiguous because MMCV's RoIAlign ignores strides.
    """
    return x[:, x.shape[1] - grid[0] * grid[1] :].transpose(1, 2).unflatten(2, grid).contiguous()


def _is_pretrained(init_cfg: dict) -> bool:
    kind = init_cfg['type']
    return kind is PretrainedInit or (isinstance(kind, str) and kind.rpartition('.')[2] == 'Pretrained')
