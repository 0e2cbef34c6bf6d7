"""Attention distance and entropy of a backbone, and attention maps of one query.

Distance is defined as by Dosovitskiy et al. (*An Image is Worth 16x16 Words*, ICLR 2021, arXiv 2010.11929, figure 7):
the distance between query and key, weighted by the attention and averaged over the queries, in pixels of the network's
input. Entropy is that of a query's attention over its keys, in nats, also averaged over the queries. RoPE-ViT's paper
plots both for each block; how it treats a cls token and windows is not known here. In mmrope the queries are those of
the grid. A cls token counts as a key in the entropy; it has no distance, so the keys of the grid share its weight.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..layers import Attention, Span, Windows, varlen, window_order
from ..models import RoPESwin, RoPEViT
from ..models.open_tokens import split_open

# Attention weights in memory at a time: 64 MiB in float32. All heads of a 64 x 64 grid would take 12 times as many.
MAX_WEIGHTS = 2**24


class Batch(NamedTuple):
    """Rotated queries and keys of windows of equal shape, as the attention gets them.

    Attributes:
        q: those of the grid, ``(B, heads, h * w, head_dim)``.
        k: ``(B, heads, P + h * w, head_dim)``; the first ``P``, of prefix tokens, have no position.
        bias: added to the logits, ``(heads, h * w, h * w)``, or ``None``.
        rows: where these windows lie, along the rows of the grid.
        cols: along the columns.
    """

    q: Tensor
    k: Tensor
    bias: Tensor | None
    rows: Span
    cols: Span

    @property
    def num_prefix(self) -> int:
        """Number of tokens without a position."""
        return self.k.shape[2] - self.rows.size * self.cols.size

    def log_weights(self, chunk: slice) -> Tensor:
        """Return the log weights of some queries, ``(B, heads, queries, P + h * w)``, in float32 or better."""
        dtype = torch.promote_types(self.q.dtype, torch.float32)
        logits = self.q[:, :, chunk].to(dtype) @ self.k.to(dtype).mT * self.q.shape[-1] ** -0.5
        if self.bias is not None:
            logits += self.bias[:, chunk].to(dtype)
        return logits.log_softmax(-1)


class _AttentionCalls(TorchFunctionMode):
    """Mode that hands queries, keys and bias of each call of PyTorch's attention to a function."""

    def __init__(self, see: Callable[[Tensor, Tensor, Tensor | None], None]) -> None:
        super().__init__()
        self.see = see

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self.see(args[0], args[1], kwargs.get('attn_mask'))
        return func(*args, **kwargs)


Visit = Callable[[str, tuple[int, int], Batch], None]
Head = Callable[[Sequence[Any]], Any]


@contextmanager
def watch_attention(backbone: nn.Module, visit: Visit) -> Iterator[None]:
    """Within the context, call ``visit(name, grid, batch)`` for every batch of windows, or once for global attention.

    ``name`` names the block. The backbone is unchanged: ``batch`` holds the arguments of its own attention calls.
    """
    running: list[
        Any
    ] = []  # of the layer that runs: its name and grid, the order of its tokens, and the windows still to come

    def enter(name: str, windows: Windows, order: Windows | None = None) -> None:
        lies = None if order in (None, windows) else window_order(order)
        running[:] = [name, windows.grid, lies, product(windows.rows, windows.cols)]  # in the order of the calls

    def see(q: Tensor, k: Tensor, bias: Tensor | None) -> None:
        name, grid, order, spans = running
        cut = next(spans, None)
        if cut is None:  # the queries of prefix tokens, whose call comes after those of the windows
            return
        tokens = cut[0].size * cut[1].size
        q, (prefix, k) = q[:, :, q.shape[2] - tokens :], k.split((k.shape[2] - tokens, tokens), dim=2)
        if order is not None:  # tokens lie window by window, but are one run: put them row by row
            q, k = (x[:, :, order.argsort().to(x.device)] for x in (q, k))
        visit(name, grid, Batch(q, torch.cat((prefix, k), dim=2), bias, *cut))

    hooks = [
        layer.register_forward_pre_hook(lambda layer, args, name=name: enter(name.removesuffix('.attn'), *args[1:3]))
        for name, layer in backbone.named_modules()
        if isinstance(layer, Attention)
    ]
    try:
        with _AttentionCalls(see), varlen.switched_off():  # one call for each group of windows
            yield
    finally:
        for hook in hooks:
            hook.remove()


def distance_and_entropy(batch: Batch, max_weights: int = MAX_WEIGHTS) -> Tensor:
    """Sum attention distance, in tokens, and entropy, in nats, over the queries that have a position.

    Args:
        batch: queries and keys.
        max_weights: attention weights in memory at a time; a chunk has one query at least.

    Returns:
        Distances and entropies, ``(2, heads)``, in float64.
    """
    first, length = batch.num_prefix, batch.q.shape[2]
    step = max(1, max_weights // (batch.k.shape[2] * batch.q.shape[0] * batch.q.shape[1]))
    rows = torch.arange(batch.rows.size, device=batch.q.device).repeat_interleave(batch.cols.size)
    cols = torch.arange(batch.cols.size, device=batch.q.device).repeat(batch.rows.size)
    sums = torch.zeros(2, batch.q.shape[1], dtype=torch.float64)
    for start in range(0, length, step):
        chunk = slice(start, min(start + step, length))
        log_weights = batch.log_weights(chunk)
        weights = log_weights.exp()
        offsets = (coords[chunk, None] - coords for coords in (rows, cols))
        lengths = torch.hypot(*(offset.to(weights.dtype) for offset in offsets))  # (queries, h * w)
        of_grid = weights[..., first:]
        distances = torch.einsum('bnqk,qk->bnq', of_grid, lengths) / of_grid.sum(-1)
        entropies = -torch.einsum('bnqk,bnqk->bnq', weights, log_weights)
        sums += torch.stack([x.sum((0, 2), dtype=torch.float64) for x in (distances, entropies)]).cpu()
    return sums


@dataclass
class BlockStatistics:
    """Means over images of one block.

    Attributes:
        block: name of the block within the backbone.
        stride: pixels between neighbouring tokens.
        grids: the token grids ``(H, W)`` that occurred.
        largest_windows: the ``(h, w)`` of the largest window of a grid; the grid itself for global attention.
        distance_px: mean attention distance of each head, in pixels.
        entropy_nats: mean entropy of each head.
        uniform_distance_px: the distance if each query looked at all its keys with equal weight.
        uniform_entropy_nats: the entropy in that case, which is the largest possible.
    """

    block: str
    stride: int
    grids: list[tuple[int, int]]
    largest_windows: list[tuple[int, int]]
    distance_px: list[float]
    entropy_nats: list[float]
    uniform_distance_px: float
    uniform_entropy_nats: float


@dataclass
class Sums:
    """Sums of one block and image: distance and entropy of each head and, last, of uniform attention."""

    grid: tuple[int, int]
    window: tuple[int, int]
    values: Tensor  # (2, heads + 1)


def strides_of(backbone: RoPEViT | RoPESwin) -> dict[str, int]:
    """Return the pixels between neighbouring tokens, for each block that runs by its name."""
    patch = backbone.patch_embed.patch_size[0]
    if isinstance(backbone, RoPEViT):
        number = len(backbone.blocks) if backbone.open_blocks else backbone.out_indices[-1] + 1
        return {f'blocks.{i}': patch for i in range(number)}
    return {
        f'layers.{i}.blocks.{j}': patch * 2**i
        for i, stage in enumerate(backbone.layers[: backbone.out_indices[-1] + 1])
        for j in range(len(stage.blocks))
    }


def attention_statistics(
    backbone: RoPEViT | RoPESwin, images: Iterable[Tensor], head: Head | None = None
) -> list[BlockStatistics]:
    """Measure mean attention distance and entropy of each block and head.

    Args:
        backbone: in eval mode; it is not changed.
        images: inputs of the network, ``(B, 3, H, W)`` each, of any sizes, padding included. Each has the same weight
            in the means.
        head: with ``open_blocks``, what runs them on the output of the backbone. Its queries count as keys, as a cls
            token does.

    Returns:
        One for each block that runs, in order.

    Raises:
        ValueError: if there is no image, or open blocks have no head.
    """
    return mean_statistics(backbone, [image_sums(backbone, image, head) for image in images])


@torch.no_grad()
def image_sums(backbone: RoPEViT | RoPESwin, image: Tensor, head: Head | None = None) -> dict[str, Sums]:
    """Measure ``(B, 3, H, W)`` images for :func:`mean_statistics`; the result is by the name of a block."""
    sums: dict[str, Sums] = {}

    def add(name: str, grid: tuple[int, int], batch: Batch) -> None:
        nothing = batch._replace(q=torch.zeros_like(batch.q[:1, :1]), k=torch.zeros_like(batch.k[:1, :1]), bias=None)
        uniform = len(batch.q) * distance_and_entropy(nothing)
        values = torch.cat((distance_and_entropy(batch), uniform), dim=1)
        block = sums.setdefault(name, Sums(grid, (0, 0), torch.zeros_like(values)))
        block.window = max(block.window[0], batch.rows.size), max(block.window[1], batch.cols.size)
        block.values += values

    with watch_attention(backbone, add):
        _run(backbone, image, head)
    for block in sums.values():
        block.values /= len(image) * block.grid[0] * block.grid[1]
    return sums


def _run(backbone: RoPEViT | RoPESwin, image: Tensor, head: Head | None) -> None:
    """Run all blocks; a head runs those that are open."""
    outs = backbone(image)
    tokens = split_open(outs)[1]
    if tokens is not None and head is None:
        raise ValueError(f'head must run the {len(tokens.blocks)} open blocks of the backbone, but got None')
    if tokens is not None and head is not None:
        head(outs)


def mean_statistics(backbone: RoPEViT | RoPESwin, of_images: Sequence[dict[str, Sums]]) -> list[BlockStatistics]:
    """Average the :func:`image_sums` of one or more images, with equal weights.

    Raises:
        ValueError: if there is none.
    """
    if not of_images:
        raise ValueError('images must hold at least one, but got none')
    return [_average(name, stride, [sums[name] for sums in of_images]) for name, stride in strides_of(backbone).items()]


def _average(name: str, stride: int, blocks: list[Sums]) -> BlockStatistics:
    distances, entropies = torch.stack([block.values for block in blocks]).mean(0).tolist()
    return BlockStatistics(
        name,
        stride,
        sorted({block.grid for block in blocks}),
        sorted({block.window for block in blocks}),
        [distance * stride for distance in distances[:-1]],
        entropies[:-1],
        distances[-1] * stride,
        entropies[-1],
    )


@torch.no_grad()
def attention_maps(
    backbone: RoPEViT | RoPESwin, image: Tensor, x: int, y: int, head: Head | None = None
) -> dict[str, Tensor]:
    """Return the attention map of the query at a pixel, for each block that runs.

    Args:
        backbone: in eval mode; it is not changed.
        image: input of the network, ``(1, 3, H, W)``.
        x: column of the pixel.
        y: row of the pixel.
        head: as for :func:`attention_statistics`.

    Returns:
        For each block, by name, the attention weights on the token grid, ``(heads, H, W)``; NaN outside the window.

    Raises:
        ValueError: if the pixel is not within the image, or open blocks have no head.
    """
    if not (0 <= x < image.shape[3] and 0 <= y < image.shape[2]):
        raise ValueError(
            f'x and y must be within 0 .. {image.shape[3] - 1} and 0 .. {image.shape[2] - 1}, got x = {x}, y = {y}'
        )
    strides, maps = strides_of(backbone), {}

    def look(name: str, grid: tuple[int, int], batch: Batch) -> None:
        row, col = (_window_of(pixel // strides[name], span) for pixel, span in ((y, batch.rows), (x, batch.cols)))
        if row is None or col is None:
            return
        (i, top, h), (j, left, w) = row, col
        index = i * batch.cols.number + j
        one = batch._replace(q=batch.q[index : index + 1], k=batch.k[index : index + 1])
        query = (y // strides[name] - top) * w + x // strides[name] - left
        weights = one.log_weights(slice(query, query + 1))[0, :, 0, batch.num_prefix :].exp()
        maps[name] = weights.new_full((len(weights), *grid), torch.nan)
        maps[name][:, top : top + h, left : left + w] = weights.unflatten(1, (h, w))

    with watch_attention(backbone, look):
        _run(backbone, image, head)
    return maps


def _window_of(token: int, span: Span) -> tuple[int, int, int] | None:
    """Find the window of a span that holds a token: its index, start and length; ``None`` if none does."""
    index = (token - span.start) // span.size
    return (index, span.start + index * span.size, span.size) if 0 <= index < span.number else None
