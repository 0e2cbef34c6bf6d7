"""Parameters and FLOPs of a model at any image size, and the rotation's share of them.

A FLOP is one addition or one multiplication, so a multiply-add is two; papers often give multiply-adds and call them
FLOPs. PyTorch's ``FlopCounterMode`` counts matrix products, convolutions and attention as they run, windows by their
real sizes. Like other counters, it leaves out elementwise operations (norms, activations, interpolation) and sampling
(RoIAlign, deformable attention).

The rotation is elementwise, so it is counted by hand: a pair of channels takes four multiplications and two additions,
in q and in k, which is 6 FLOPs per token and channel. The table of cosines and sines does not grow with the batch, so
it is counted separately.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ..layers import Attention


def _attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(query, key, value)


# PyTorch 2.11 has no formula for the CPU's attention kernel: without this, attention counts as zero there.
FORMULAS = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
PAIR_FLOPS = 6
PARTS = ('backbone', 'neck')


@dataclass
class Cost:
    """Parameters and FLOPs of a model for one image or batch.

    Attributes:
        size: ``(H, W)`` of the network's input, in pixels.
        params: parameters by part: ``'backbone'``, ``'neck'``, ``'heads'`` (all the rest) and ``'total'``.
        flops: FLOPs by the same parts, without the rotation.
        rotation_flops: FLOPs of the rotation of q and k.
        table_flops: FLOPs of all blocks' tables of cosines and sines; a cosine or a sine counts as one.
    """

    size: tuple[int, int]
    params: dict[str, int]
    flops: dict[str, int]
    rotation_flops: int
    table_flops: int

    @property
    def rotation_share(self) -> float:
        """FLOPs of the rotation as a share of all, those of tables left out."""
        return self.rotation_flops / (self.flops['total'] + self.rotation_flops)


@torch.no_grad()
def count(model: nn.Module, inputs: Mapping[str, Any]) -> Cost:
    """Count parameters and FLOPs of ``model(**inputs)``.

    Args:
        model: in eval mode; its parts are the modules ``backbone`` and ``neck``, and the rest is called heads. Open
            blocks count as the backbone's, which holds them, with the queries that a head has put in.
        inputs: arguments of the model; ``inputs['inputs']`` are the images, ``(B, 3, H, W)``.
    """
    rotation = table = 0

    def count_rotation(layer: Attention, args: tuple) -> None:
        nonlocal rotation, table
        if layer.rope is None:
            return
        x, windows = args[:2]
        tokens = windows.grid[0] * windows.grid[1]  # a cls token is not rotated
        with_prefix = windows.several and windows.prefix_of(x) > 0  # then positions count from the grid's corner
        height, width = windows.grid if with_prefix else windows.largest
        _, heads, pairs = layer.rope.freqs.shape
        rotation += PAIR_FLOPS * len(x) * tokens * x.shape[2]  # q and k have half as many pairs as channels each
        sines = 3 * (height + width) * heads * pairs  # angle, cosine and sine along each axis
        table += sines + PAIR_FLOPS * height * width * heads * pairs

    layers = [layer for layer in model.modules() if isinstance(layer, Attention)]
    hooks = [layer.register_forward_pre_hook(count_rotation) for layer in layers]
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    try:
        with counter:
            model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    by_module = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    flops = {part: _flops(by_module, model, part) for part in PARTS}
    params = {part: _params(getattr(model, part, None)) for part in PARTS}
    totals = _params(model), counter.get_total_flops()
    for parts, total in zip((params, flops), totals):
        parts.update(heads=total - sum(parts.values()), total=total)
    return Cost(tuple(inputs['inputs'].shape[2:]), params, flops, rotation, table)


def _params(module: nn.Module | None) -> int:
    return 0 if module is None else sum(param.numel() for param in module.parameters())


def _flops(by_module: Mapping[str, int], model: nn.Module, part: str) -> int:
    """Return the FLOPs of a part, with those of its blocks that a head has run."""
    name, module = f'{type(model).__name__}.{part}', getattr(model, part, None)
    opened = getattr(module, 'open_blocks', 0)
    last = len(getattr(module, 'blocks', ()))
    blocks = (by_module.get(f'{name}.blocks.{i}', 0) for i in range(last - opened, last))
    return by_module.get(name, 0) + sum(blocks)
