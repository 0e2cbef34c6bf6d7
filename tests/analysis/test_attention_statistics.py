"""Attention statistics and maps against a brute-force softmax(q k^T) in float64, one query and one window at a time."""

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmrope import RoPESwin, RoPEViT
from mmrope.analysis.attention import Batch, attention_maps, attention_statistics, distance_and_entropy
from mmrope.layers import Span, Windows, window_order
from mmrope.models import EoMT

VIT = dict(arch=dict(embed_dims=16, depth=2, num_heads=2), patch_size=4)
SWIN = dict(arch=dict(embed_dims=8, depths=(2, 2), num_heads=(1, 2)), patch_size=2, window_size=4, out_indices=(0, 1))


def spread(model: torch.nn.Module) -> torch.nn.Module:
    """Larger weights, so that the attention is far from uniform; float64."""
    for name, param in model.named_parameters():
        if name.endswith(('qkv.weight', 'bias_table', 'cls_token', 'reg_token', 'pos_embed')):
            torch.nn.init.normal_(param, std=0.7)
    return model.double().eval()


def cases() -> Iterator[tuple[str, torch.nn.Module, int]]:
    """Models, and the side of their windows as the brute force knows it: 0 for global."""
    yield 'global', RoPEViT(**VIT)
    yield 'axial', RoPEViT(rope='axial', **VIT)
    yield 'cls', RoPEViT(rope='mixed', with_cls_token=True, ape=True, **VIT)
    yield 'no rope', RoPEViT(rope=None, ape=True, **VIT)
    yield 'windows', RoPEViT(window_size=3, global_attn_indexes=(1,), **VIT)
    yield (
        'windows with prefix',
        RoPEViT(window_size=3, global_attn_indexes=(1,), with_cls_token=True, num_registers=2, **VIT),
    )
    yield 'swin', RoPESwin(**SWIN)
    yield 'swin rpb', RoPESwin(rpb=True, **SWIN)
    yield 'rpb alone', RoPESwin(rope=None, rpb=True, **SWIN)


CASES = dict(cases())


def bounds(name: str, block: str, length: int) -> list[int]:
    """Where windows end along an axis, written down by hand for the lengths that occur."""
    vit = {5: [3, 5], 7: [3, 5, 7]} if name.startswith('windows') and block == 'blocks.0' else {5: [5], 7: [7]}
    plain = {9: [4, 8, 9], 13: [4, 8, 12, 13], 5: [4, 5], 7: [4, 7]}
    shifted = {9: [2, 6, 9], 13: [2, 6, 10, 13], 5: [2, 5], 7: [2, 6, 7]}
    if block.startswith('layers'):
        return (shifted if block.endswith('1') else plain)[length]
    return vit[length]


def attention_inputs(model: torch.nn.Module, image: Tensor) -> dict[str, tuple[Tensor, tuple[int, int]]]:
    """Inputs of each attention layer, row by row, and the grid."""
    seen = {}

    def note(name: str, x: Tensor, windows: Windows, lies: Windows | None) -> None:
        order = window_order(lies or windows)
        prefix = x.shape[1] - len(order)
        seen[name] = torch.cat((x[:, :prefix], x[:, prefix:][:, order.argsort()]), dim=1), windows.grid

    hooks = [
        module.register_forward_pre_hook(lambda _, args, name=name: note(name, *args))
        for name, module in model.named_modules()
        if name.endswith('.attn')
    ]
    with torch.no_grad():
        model(image)
    for hook in hooks:
        hook.remove()
    return seen


def logit(layer: torch.nn.Module, q: Tensor, k: Tensor, head: int, at: tuple | None, to: tuple | None) -> Tensor:
    """One entry of q k^T, rotated as complex numbers, with the bias of its offset."""
    a, b = torch.view_as_complex(q.view(-1, 2)), torch.view_as_complex(k.view(-1, 2))
    bias = 0.0
    for vector, place in ((a, at), (b, to)):
        if layer.rope is not None and place is not None:
            freqs = layer.rope.freqs[:, head if layer.rope.freqs.shape[1] > 1 else 0].double()
            vector *= torch.polar(torch.ones_like(freqs[0]), place[1] * freqs[0] + place[0] * freqs[1])
    if layer.rpb is not None:
        size = layer.rpb.window_size
        table = layer.rpb.relative_position_bias_table.view(2 * size - 1, 2 * size - 1, -1)
        bias = table[at[0] - to[0] + size - 1, at[1] - to[1] + size - 1, head]
    return (a * b.conj()).real.sum() / math.sqrt(q.numel()) + bias


@torch.no_grad()
def brute_force(name: str, block: str, layer: torch.nn.Module, x: Tensor, grid: tuple[int, int]) -> dict:
    """Weights of each query (head, row, column) on ``(row, column) or None`` keys."""
    q, k, _ = layer.qkv(x[0]).view(len(x[0]), 3, layer.num_heads, -1).clone().unbind(1)
    prefix = len(x[0]) - grid[0] * grid[1]
    tokens = [None] * prefix + [(row, col) for row in range(grid[0]) for col in range(grid[1])]
    ends = [bounds(name, block, length) for length in grid]

    def window(token: tuple[int, int]) -> tuple[int, ...]:
        return tuple(sum(place >= end for end in axis) for place, axis in zip(token, ends))

    out = {}
    for head in range(layer.num_heads):
        for i, at in enumerate(tokens):
            if at is None:
                continue
            keys = [j for j, to in enumerate(tokens) if to is None or window(to) == window(at)]
            logits = torch.stack(
                [logit(layer, q[i, head].clone(), k[j, head].clone(), head, at, tokens[j]) for j in keys]
            )
            out[(head, *at)] = dict(
                zip([tokens[j] if tokens[j] else j - prefix for j in keys], logits.softmax(0).tolist())
            )
    return out


def averages(weights: dict, heads: int, stride: int) -> tuple[list[float], list[float]]:
    distances, entropies = [[] for _ in range(heads)], [[] for _ in range(heads)]
    for (head, row, col), keys in weights.items():
        placed = {key: p for key, p in keys.items() if isinstance(key, tuple)}
        distance = sum(p * math.hypot(key[0] - row, key[1] - col) for key, p in placed.items()) / sum(placed.values())
        distances[head].append(stride * distance)
        entropies[head].append(-sum(p * math.log(p) for p in keys.values()))
    return tuple([sum(values) / len(values) for values in rows] for rows in (distances, entropies))


@pytest.mark.parametrize('name', CASES)
def test_statistics_and_maps_are_those_of_the_brute_force(name: str) -> None:
    torch.manual_seed(1)
    model = spread(CASES[name])
    image = torch.randn(1, 3, 18, 26, dtype=torch.float64)  # grids of 5 x 7 (ViT); 9 x 13 and 5 x 7 (Swin)
    queries = [(21, 9), (3, 12), (12, 2), (25, 17)]
    inputs = attention_inputs(model, image)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    statistics = {block.block: block for block in attention_statistics(model, [image])}
    maps = {query: attention_maps(model, image, *query) for query in queries}
    assert list(statistics) == list(maps[queries[0]]) == [key.removesuffix('.attn') for key in inputs]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())
    for block, ours in statistics.items():
        tokens, grid = inputs[f'{block}.attn']
        stride = {9: 2}.get(grid[0], 4)
        layer = model.get_submodule(f'{block}.attn')
        weights = brute_force(name, block, layer, tokens, grid)
        distances, entropies = averages(weights, layer.num_heads, stride)
        assert (ours.stride, ours.grids) == (stride, [grid])
        assert ours.distance_px == pytest.approx(distances, rel=1e-6)  # freqs stay in float32 until they meet float64
        assert ours.entropy_nats == pytest.approx(entropies, rel=1e-6)
        uniform = {key: dict.fromkeys(keys, 1 / len(keys)) for key, keys in weights.items() if key[0] == 0}
        (distance,), (entropy,) = averages(uniform, 1, stride)
        assert (ours.uniform_distance_px, ours.uniform_entropy_nats) == pytest.approx((distance, entropy))
        for (x, y), head in product(queries, range(layer.num_heads)):
            keys = weights[head, y // stride, x // stride]
            expected = [[keys.get((row, col), math.nan) for col in range(grid[1])] for row in range(grid[0])]
            assert maps[x, y][block][head].numpy() == pytest.approx(np.array(expected), rel=1e-5, nan_ok=True)


def test_images_of_several_sizes_count_alike() -> None:
    model = spread(CASES['windows'])
    images = [torch.randn(2, 3, 20, 28, dtype=torch.float64), torch.randn(1, 3, 12, 40, dtype=torch.float64)]
    both, (first, second) = attention_statistics(model, images), [attention_statistics(model, [x]) for x in images]
    assert both[0].grids == [(3, 10), (5, 7)] and both[0].largest_windows == [(3, 3)]
    assert both[1].largest_windows == [(3, 10), (5, 7)]
    for mean, a, b in zip(both, first, second):
        assert mean.distance_px == pytest.approx([(u + v) / 2 for u, v in zip(a.distance_px, b.distance_px)])
        assert mean.entropy_nats == pytest.approx([(u + v) / 2 for u, v in zip(a.entropy_nats, b.entropy_nats)])


def batch_of(heads: int, side: int, head_dim: int) -> Batch:
    q, k = torch.randn(2, 1, heads, side**2, head_dim)
    return Batch(q, k, None, Span(0, side, 1), Span(0, side, 1))


def test_chunks_change_nothing() -> None:
    batch = batch_of(3, 6, 4)
    whole = distance_and_entropy(batch)
    for max_weights in (1, 3 * 36 * 5, 3 * 36 * 36):
        torch.testing.assert_close(distance_and_entropy(batch, max_weights), whole)


class LargestTensor(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.numel = max(self.numel, out.numel())
        return out


def test_no_matrix_of_all_heads_and_queries_is_made() -> None:
    """A grid of 64 x 64 with 12 heads has 201 million weights."""
    with LargestTensor() as largest:
        distance, entropy = distance_and_entropy(batch_of(12, 64, 4)) / 64**2
    assert largest.numel <= 2**24
    assert 0 < distance.min() and distance.max() < 64 and entropy.max() <= math.log(64**2)


def test_one_token_looks_at_itself() -> None:
    (block, _) = attention_statistics(spread(CASES['global']), [torch.randn(1, 3, 3, 2, dtype=torch.float64)])
    assert block.grids == [(1, 1)] and block.distance_px == [0, 0]
    assert block.entropy_nats == pytest.approx([0, 0], abs=1e-12)


def test_a_query_outside_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r'\b7\b.*\b3\b.*\bx\W+8\W+y\W+1\b'):
        attention_maps(CASES['global'], torch.zeros(1, 3, 4, 8), 8, 1)


def test_no_image_is_an_error() -> None:
    with pytest.raises(ValueError, match='images .*none'):
        attention_statistics(CASES['global'], [])


def test_open_blocks_are_measured_where_the_head_runs_them() -> None:
    settings = dict(VIT, final_norm=True, with_cls_token=True, ape=True)
    closed = spread(RoPEViT(**settings))
    model = RoPEViT(out_indices=(), open_blocks=1, **settings).double().eval()
    model.load_state_dict(closed.state_dict())
    image = torch.randn(1, 3, 18, 26, dtype=torch.float64)

    def without_queries(outs: tuple) -> None:
        outs[-1].blocks[0](outs[-1].x)

    assert attention_statistics(model, [image], without_queries) == attention_statistics(closed, [image])
    maps = [attention_maps(model, image, 9, 5, head=without_queries), attention_maps(closed, image, 9, 5)]
    assert maps[0].keys() == maps[1].keys() and all(torch.equal(maps[0][key], maps[1][key]) for key in maps[0])
    eomt = EoMT(16, 3, 9, 1, 4).double().eval()
    last = attention_statistics(model, [image], lambda outs: eomt(outs[-1]))[-1]
    assert last.uniform_entropy_nats == pytest.approx(math.log(9 + 1 + 5 * 7)), 'queries count as keys'
    assert last.uniform_distance_px == pytest.approx(attention_statistics(closed, [image])[-1].uniform_distance_px)
    with pytest.raises(ValueError, match='head must run the 1 open blocks of the backbone, but got None'):
        attention_statistics(model, [image])


@pytest.mark.parametrize(
    'model, ran', [(RoPEViT(**VIT), ['blocks.0']), (RoPESwin(**SWIN), ['layers.0.blocks.0', 'layers.0.blocks.1'])]
)
def test_blocks_that_do_not_run_are_left_out(model: RoPEViT | RoPESwin, ran: list[str]) -> None:
    model.out_indices = (0,)
    image = torch.randn(1, 3, 8, 8)
    assert [block.block for block in attention_statistics(model.eval(), [image])] == ran
    assert list(attention_maps(model, image, 3, 3)) == ran
