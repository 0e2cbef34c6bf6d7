"""An oracle: EoMT in float64, by its definition, on the weights of an mmrope.RoPEViT and an mmrope.models.EoMT.

Each block attends by an N x N table of who may attend to whom, filled query by query.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmrope import RoPEViT
from mmrope.models import EoMT
from tests.helpers import plain_vit as plain


def plain_eomt(
    backbone: RoPEViT,
    eomt: EoMT,
    x: Tensor,
    weights: dict[str, Tensor],
    head: dict[str, Tensor],
    global_blocks: set[int],
    keeps: Sequence[Tensor] | None,
) -> list[tuple[Tensor, Tensor]]:
    """The logits of all predictions.

    Args:
        weights: those of the backbone in float64; ``head`` are those of ``eomt``.
        global_blocks: blocks with global attention.
        keeps: for each open block, whether each query of each image keeps its mask, ``(B, Q)``; ``None`` in eval mode.
    """
    x, grid, prefix = plain.embed(backbone, x, weights)
    first = len(backbone.blocks) - backbone.open_blocks
    for i in range(first):
        x = plain.block(backbone, i, x, weights, grid, plain.window_mask(backbone, i, grid, prefix, global_blocks))
    queries = head['queries']
    x = torch.cat([queries.expand(len(x), -1, -1), x], dim=1)
    outs = []
    for number, i in enumerate(range(first, len(backbone.blocks))):
        table = torch.zeros(())
        if keeps is not None:
            outs.append(predict(x, len(queries), grid, weights, head))
            table = who_attends(outs[-1][1], grid, x.shape[1], keeps[number])
        x = plain.block(backbone, i, x, weights, grid, table)
    return [*outs, predict(x, len(queries), grid, weights, head)]


def predict(x: Tensor, queries: int, grid: tuple[int, int], weights: dict, head: dict) -> tuple[Tensor, Tensor]:
    x = plain.norm(x, weights, 'norm', 1e-6)
    q, patches = x[:, :queries], x[:, -grid[0] * grid[1] :].transpose(1, 2).unflatten(2, grid)
    classes = plain.linear(q, head, 'classes')
    q = plain.linear(F.gelu(plain.linear(F.gelu(plain.linear(q, head, 'masks.0')), head, 'masks.2')), head, 'masks.4')
    level = 0
    while f'upscale.{level}.0.weight' in head:
        patches = doubled(patches, head, f'upscale.{level}')
        level += 1
    return classes, (q[:, :, :, None, None] * patches[:, None]).sum(2)


def doubled(x: Tensor, head: dict[str, Tensor], name: str) -> Tensor:
    """Four pixels for one, GELU, each channel's weighted sum of 3 x 3 neighbours, and a norm over the channels."""
    x = torch.einsum('bchw,coij->bohiwj', x, head[f'{name}.0.weight']).flatten(4, 5).flatten(2, 3)
    x = F.gelu(x + head[f'{name}.0.bias'][:, None, None])
    (height, width), around, weight = x.shape[2:], F.pad(x, (1, 1, 1, 1)), head[f'{name}.2.weight']
    x = sum(
        around[:, :, i : i + height, j : j + width] * weight[:, 0, i, j, None, None] for i in range(3) for j in range(3)
    )
    return plain.norm(x.movedim(1, -1), head, f'{name}.3', 1e-6).movedim(-1, 1)


def who_attends(masks: Tensor, grid: tuple[int, int], tokens: int, keep: Tensor) -> Tensor:
    """``-inf`` where a query may not look: at patches outside its mask, if it keeps it, ``(B, 1, N, N)``."""
    batch, queries = masks.shape[:2]
    scale, first = masks.shape[2] // grid[0], tokens - grid[0] * grid[1]
    table = torch.zeros(batch, 1, tokens, tokens, dtype=torch.double)
    for image in range(batch):
        for query in range(queries):
            for row in range(grid[0]):
                for col in range(grid[1]):
                    y, x = (place * scale + scale // 2 - 1 for place in (row, col))
                    middle = masks[image, query, y : y + 2, x : x + 2].mean()  # bilinear, at the middle of the patch
                    if keep[image, query] and not middle > 0:
                        table[image, 0, query, first + row * grid[1] + col] = -torch.inf
    return table
