from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.checkpoint import checkpoint

from mmrope.layers import Attention, Positions, RoPE, axis_angles, even_windows, one_window, reorder, shifted_windows
from mmrope.layers.qkv import _split, split_qkv
from mmrope.layers.windows import Windows
from tests.helpers.checkpointing import selective_contexts

GRIDS = [(1, 1), (6, 6), (5, 9), (9, 5), (1, 11)]


def oracle(
    attn: Attention, x: torch.Tensor, grid: tuple[int, int], windows: Windows | None = None, num_prefix: int = 0
) -> torch.Tensor:
    """Attention in float64 and complex numbers, a loop over queries: every key in the window of a query, softmax."""
    weights = {name: value.detach().double().numpy() for name, value in attn.state_dict().items()}
    x = x.detach().double().numpy()
    batch, tokens, dim = x.shape
    heads, head_dim = attn.num_heads, dim // attn.num_heads
    qkv = (x @ weights['qkv.weight'].T + weights['qkv.bias']).reshape(batch, tokens, 3, heads, head_dim)
    positions = [None] * num_prefix + [(h, w) for h in range(grid[0]) for w in range(grid[1])]
    window = window_of(grid, windows)

    def pairs(vectors: np.ndarray, token: int) -> np.ndarray:
        numbers = vectors[..., 0::2] + 1j * vectors[..., 1::2]  # (B, heads, head_dim // 2)
        if attn.rope is None or positions[token] is None:
            return numbers
        freqs = attn.rope.freqs.detach().double().numpy()
        h, w = positions[token]
        return numbers * np.exp(1j * (w * freqs[0] + h * freqs[1]))

    q = [pairs(qkv[:, t, 0], t) for t in range(tokens)]
    k = [pairs(qkv[:, t, 1], t) for t in range(tokens)]
    out = np.zeros((batch, tokens, heads, head_dim))
    for t in range(tokens):
        keys = [s for s in range(tokens) if window(positions[t]) == window(positions[s])]
        logits = np.stack([(q[t] * k[s].conj()).real.sum(-1) for s in keys], -1) / head_dim**0.5  # (B, heads, keys)
        if attn.rpb is not None:
            side = 2 * attn.rpb.window_size - 1
            table = weights['rpb.relative_position_bias_table'].reshape(side, side, heads)
            offsets = np.array(positions[t]) - np.array([positions[s] for s in keys]) + attn.rpb.window_size - 1
            logits += table[offsets[:, 0], offsets[:, 1]].T
        probs = np.exp(logits - logits.max(-1, keepdims=True))
        probs /= probs.sum(-1, keepdims=True)
        out[:, t] = np.einsum('bnk,bknd->bnd', probs, qkv[:, keys, 2])
    return torch.from_numpy(out.reshape(batch, tokens, dim) @ weights['proj.weight'].T + weights['proj.bias'])


def window_of(grid: tuple[int, int], windows: Windows | None) -> Callable[[tuple[int, int]], Any]:
    if windows is None:
        return lambda position: 0
    starts = [
        sorted(s.start + i * s.size for s in spans for i in range(s.number)) for spans in (windows.rows, windows.cols)
    ]
    return lambda position: tuple(max(s for s in axis if s <= p) for axis, p in zip(starts, position))


def run(
    attn: Attention,
    x: torch.Tensor,
    grid: tuple[int, int],
    windows: Windows | None = None,
    across: Windows | None = None,
) -> torch.Tensor:
    """Attention over tokens that are given row by row, and given back so; ``across`` the windows of a cut if given."""
    row_by_row = one_window(grid)
    lies = across or windows or row_by_row
    x = reorder(x, row_by_row, lies)
    return reorder(attn(x, windows or row_by_row, across), lies, row_by_row)


def make(rope: str | None, dim: int = 24, heads: int = 3, rpb_window_size: int | None = None) -> Attention:
    attn = Attention(dim, heads, rope, 10.0, rpb_window_size)
    tables = [] if attn.rpb is None else [attn.rpb.relative_position_bias_table]
    for param in (attn.qkv.weight, attn.qkv.bias, *tables):  # large enough for attention to be far from uniform
        torch.nn.init.normal_(param, std=0.6)
    return attn


@pytest.mark.parametrize('rope', ['mixed', 'axial', None])
@pytest.mark.parametrize('grid', GRIDS)
def test_global_attention_equals_the_oracle(
    rope: str | None, grid: tuple[int, int], close: Callable[..., None]
) -> None:
    attn, x = make(rope), torch.randn(2, grid[0] * grid[1], 24)
    close(run(attn, x, grid), oracle(attn, x, grid))


def test_global_attention_takes_a_bias_too(close: Callable[..., None]) -> None:
    attn, x = make('mixed', rpb_window_size=9), torch.randn(2, 5 * 9, 24)
    close(run(attn, x, (5, 9)), oracle(attn, x, (5, 9)))


@pytest.mark.parametrize('rope', ['mixed', 'axial', None])
def test_prefix_tokens_attend_without_position(rope: str | None, close: Callable[..., None]) -> None:
    attn, x = make(rope), torch.randn(2, 2 + 5 * 3, 24)
    close(attn(x, one_window((5, 3))), oracle(attn, x, (5, 3), num_prefix=2))


@pytest.mark.parametrize('rope', ['mixed', 'axial', None])
@pytest.mark.parametrize('grid', GRIDS)
@pytest.mark.parametrize('make_windows', [even_windows, shifted_windows, lambda g, s: shifted_windows(g, s, s // 2)])
@pytest.mark.parametrize('rpb_window_size', [None, 4, 6])
def test_windowed_attention_equals_the_oracle(
    rope: str | None, grid: tuple[int, int], make_windows, rpb_window_size: int | None, close: Callable[..., None]
) -> None:
    attn = make(rope, rpb_window_size=rpb_window_size).double()
    x, windows = torch.randn(2, grid[0] * grid[1], 24).double(), make_windows(grid, 4)
    close(run(attn, x, grid, windows), oracle(attn, x, grid, windows))


@pytest.mark.parametrize('grid', GRIDS)
def test_one_window_over_the_grid_is_global_attention(grid: tuple[int, int], close: Callable[..., None]) -> None:
    attn, x = make('mixed'), torch.randn(2, grid[0] * grid[1], 24)
    assert even_windows(grid, 11) == one_window(grid)
    close(run(attn, x, grid, even_windows(grid, 11)), oracle(attn, x, grid))


def test_tokens_in_other_windows_do_not_matter() -> None:
    attn, x, windows = make('mixed'), torch.randn(1, 5, 7, 24), even_windows((5, 7), 3)
    y = x.clone()
    y[:, 4:, 5:] = torch.randn(1, 1, 2, 24)
    before, after = (run(attn, z.flatten(1, 2), (5, 7), windows).unflatten(1, (5, 7)) for z in (x, y))
    changed = (before - after).abs().amax((0, 3)) > 0
    assert changed[3:, 5:].all() and changed.sum() == changed[3:, 5:].numel()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('windows', [None, even_windows((9, 13), 6)], ids=['global', 'windowed'])
def test_autocast_stays_within_tolerance(dtype: torch.dtype, windows, close: Callable[..., None]) -> None:
    attn, x = Attention(64, 4, 'mixed', 10.0), torch.randn(2, 9 * 13, 64)
    with torch.autocast('cpu', dtype):
        ours = run(attn, x, (9, 13), windows)
    assert ours.dtype == dtype
    close(ours, run(attn, x, (9, 13), windows))


@pytest.mark.parametrize('rope', ['mixed', 'axial', None])
@pytest.mark.parametrize('grid', GRIDS)
@pytest.mark.parametrize('make_windows', [even_windows, lambda g, s: shifted_windows(g, s, s // 2)])
def test_attention_across_windows_is_global_attention(
    rope: str | None, grid: tuple[int, int], make_windows, close: Callable[..., None]
) -> None:
    attn, x = make(rope), torch.randn(2, grid[0] * grid[1], 24)
    close(run(attn, x, grid, across=make_windows(grid, 4)), oracle(attn, x, grid))


LEARNING = {
    'global': (one_window((3, 5)), None),
    'prefix of 3': (one_window((3, 4)), None),
    'windowed': (even_windows((3, 5), 2), None),
    'across windows': (one_window((3, 5)), even_windows((3, 5), 2)),
}


# The fast mode checks random projections of the Jacobian, the slow one each of its entries.
ONE_BY_ONE = [True, pytest.param(False, marks=pytest.mark.slow)]


def gradients_are_exact(attn: Attention, windows: Windows, order: Windows | None, batch: int, fast: bool) -> bool:
    x = torch.randn(batch, 15, 8, dtype=torch.double, requires_grad=True)
    names, params = zip(*attn.named_parameters())

    def forward(x: torch.Tensor, *params: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(attn, dict(zip(names, params)), (x, windows, order))

    return torch.autograd.gradcheck(forward, (x, *params), fast_mode=fast)


@pytest.mark.parametrize('fast', ONE_BY_ONE)
@pytest.mark.parametrize('rope', ['mixed', 'axial', None])
@pytest.mark.parametrize('windows, order', LEARNING.values(), ids=LEARNING.keys())
@pytest.mark.parametrize('batch', [1, 2])
def test_every_gradient_is_exact(rope: str | None, windows, order, batch: int, fast: bool) -> None:
    attn = make(rope, 8, 2).double()
    assert gradients_are_exact(attn, windows, order, batch, fast)
    attn(torch.randn(batch, 15, 8, dtype=torch.double), windows, order).square().sum().backward()
    assert all(param.grad.abs().sum() > 0 for param in attn.parameters())


class Jittered(RoPE):
    """Positions stretched by half and moved, as some do it in training."""

    def forward(self, grid: tuple[int, int]) -> torch.Tensor:
        return axis_angles(self.freqs, grid, step=(1.5, 0.7), start=(0.3, -2.0))


def roll_heads(attn: Attention) -> None:
    attn.rope.register_forward_hook(lambda module, args, angles: angles.roll(1, dims=2))


def stretch(attn: Attention) -> None:
    attn.rope.register_forward_hook(lambda module, args, angles: angles * torch.linspace(0.5, 2, 2).double())


def other_grid(attn: Attention) -> None:
    attn.rope.register_forward_pre_hook(lambda module, args: ((args[0][1], args[0][0]),))
    attn.rope.register_forward_hook(lambda module, args, angles: angles.flip(0))


def subclass(attn: Attention) -> None:
    attn.rope = Jittered(4, 2, 'mixed', 10.0).double()


def learned_scale(attn: Attention) -> None:
    attn.rope.register_parameter('scale', torch.nn.Parameter(torch.tensor(0.7, dtype=torch.double)))
    attn.rope.register_forward_hook(lambda module, args, angles: angles * module.scale)


@pytest.mark.parametrize('fast', ONE_BY_ONE)
@pytest.mark.parametrize('change', [roll_heads, stretch, other_grid, subclass, learned_scale])
@pytest.mark.parametrize('windows, order', LEARNING.values(), ids=LEARNING.keys())
def test_gradients_follow_changes_of_the_angles(change, windows, order, fast: bool) -> None:
    attn = make('mixed', 8, 2).double()
    x = torch.randn(1, 15, 8, dtype=torch.double)
    before = attn(x, windows, order)
    change(attn)
    assert not torch.allclose(attn(x, windows, order), before)
    names, params = zip(*attn.rope.named_parameters())

    def forward(x: torch.Tensor, *params: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(attn, {f'rope.{n}': p for n, p in zip(names, params)}, (x, windows, order))

    assert torch.autograd.gradcheck(forward, (x.requires_grad_(), *params), fast_mode=fast)


@pytest.mark.parametrize('rope', ['mixed', 'axial', None])
@pytest.mark.parametrize('windows, order', LEARNING.values(), ids=LEARNING.keys())
def test_compilers_see_the_same_attention(rope: str | None, windows, order, monkeypatch: pytest.MonkeyPatch) -> None:
    attn = make(rope, 8, 2).double()
    x = torch.randn(2, 15, 8, dtype=torch.double)
    results = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, 'is_compiling', lambda compiling=compiling: compiling)
        attn.zero_grad()
        out = attn(x, windows, order)
        out.sin().sum().backward()
        results.append([out.detach(), *(param.grad.clone() for param in attn.parameters())])
    for eager, traced in zip(*results):
        torch.testing.assert_close(eager, traced, rtol=0, atol=1e-12)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_gradients_of_half_precision_are_near(dtype: torch.dtype) -> None:
    attn, x = Attention(64, 4, 'mixed', 10.0), torch.randn(2, 9 * 13, 64)
    windows = even_windows((9, 13), 6)
    grads = []
    for enabled in (False, True):
        attn.zero_grad()
        with torch.autocast('cpu', dtype, enabled=enabled):
            out = attn(x, windows)
        out.float().sin().sum().backward()
        grads.append([param.grad.clone() for param in attn.parameters()])
    for exact, ours in zip(*grads):
        assert ours.dtype == torch.float32
        assert (ours - exact).norm() < 0.03 * exact.norm()


def kept_for_backward(attn: Attention, batch: int, windows: Windows) -> int:
    """Bytes of the storages that a forward pass saves."""
    storages = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    height, width = windows.grid
    x = torch.randn(batch, height * width, attn.proj.in_features, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        assert attn(x, windows).requires_grad
    return sum(storages.values())


@pytest.mark.parametrize('windows', [one_window((20, 30)), even_windows((20, 30), 8), shifted_windows((20, 30), 7, 3)])
@pytest.mark.parametrize('rope', ['mixed', 'axial', None])
def test_bytes_kept_for_backward_grow_like_the_batch_and_not_with_rope(rope: str | None, windows) -> None:
    attn = make(rope, 64, 4)
    side = max(windows.largest)
    angles = 2 * side * (4 * 8 + 1) * 4  # float32, and positions
    without = kept_for_backward(make(None, 64, 4), 1, windows)
    weights = sum(param.numel() for param in attn.parameters()) * 4
    kept = {batch: kept_for_backward(attn, batch, windows) for batch in (1, 2, 4)}
    assert kept[1] <= without + angles + weights
    for batch in (2, 4):
        assert kept[batch] <= batch * kept[1]


@pytest.mark.parametrize('rope', ['mixed', 'axial', None])
def test_nothing_holds_the_output_of_the_projection(rope: str | None) -> None:
    """Neither what autograd saves nor anything else."""
    attn, x, windows, seen = make(rope), torch.randn(2, 35, 24), even_windows((5, 7), 3), []
    attn.qkv.register_forward_hook(lambda module, args, out: seen.append(StorageWeakRef(out.untyped_storage())))
    out = attn(x, windows)
    assert out.requires_grad and seen[0].expired()


def test_the_output_of_the_projection_is_not_changed() -> None:
    attn, x, windows, seen = make('mixed'), torch.randn(2, 35, 24), even_windows((5, 7), 3), []
    attn.qkv.register_forward_hook(lambda module, args, out: seen.append((out, out.clone())))
    attn(x, windows)
    assert torch.equal(*seen[0])


@pytest.mark.parametrize('rope', ['mixed', None])
def test_selective_checkpointing_that_keeps_products_is_exact(rope: str | None) -> None:
    attn, windows = make(rope), even_windows((5, 7), 3)
    x = torch.randn(2, 35, 24, requires_grad=True)
    products = [torch.ops.aten.mm.default, torch.ops.aten.addmm.default]
    context = partial(selective_contexts(), products)
    grads = []
    for out in (attn(x, windows), checkpoint(attn, x, windows, use_reentrant=False, context_fn=context)):
        grads.append(torch.autograd.grad(out.square().sum(), [x, *attn.parameters()]))
    assert all(map(torch.equal, *grads))


@pytest.mark.parametrize('dim, heads', [(10, 4), (8, 0), (8, -2)])
def test_wrong_heads_are_named(dim: int, heads: int) -> None:
    with pytest.raises(ValueError, match=rf'num_heads.*\b{dim}\b.*[ =]{heads}\b'):
        Attention(dim, heads, 'mixed', 10.0)


def test_a_bias_takes_tokens_row_by_row_only() -> None:
    windows = even_windows((4, 4), 2)
    with pytest.raises(ValueError, match='order .*rpb_window_size'):
        make(None, rpb_window_size=4)(torch.randn(1, 16, 24), one_window((4, 4)), windows)


def test_several_windows_take_no_fewer_tokens() -> None:
    with pytest.raises(ValueError, match='4 x 4 tokens.* 12'):
        make('mixed')(torch.randn(1, 12, 24), even_windows((4, 4), 2))


def test_several_windows_take_a_bias_or_prefix_tokens() -> None:
    with pytest.raises(ValueError, match='4 x 4 tokens.* 20'):
        make(None, rpb_window_size=2)(torch.randn(1, 20, 24), even_windows((4, 4), 2))


RULES = {
    'index': Positions(offset=1),
    'reference': Positions('reference', ref=5, offset=1),
    'window frame': Positions('reference', ref=5, offset=1, frame=2),
    'centred': Positions('centred'),
}


@pytest.mark.parametrize('rope', ['mixed', 'axial'])
@pytest.mark.parametrize('positions', RULES.values(), ids=RULES)
@pytest.mark.parametrize('fast', ONE_BY_ONE)
def test_gradients_of_windows_with_prefix_tokens_are_exact(rope, positions, fast: bool, batch=2) -> None:
    attn = Attention(8, 2, rope, 10.0, positions=positions).double()
    windows = even_windows((3, 4), 2)
    assert gradients_are_exact(attn, windows, None, batch, fast)
    attn(torch.randn(batch, 15, 8, dtype=torch.double), windows).square().sum().backward()
    assert all(param.grad.abs().sum() > 0 for param in attn.parameters())


@pytest.mark.parametrize('positions', RULES.values(), ids=RULES)
def test_prefix_tokens_and_one_window_over_the_grid_are_global_attention(positions, close) -> None:
    attn, x = Attention(24, 2, 'mixed', 10.0, positions=positions), torch.randn(2, 3 + 35, 24)
    close(attn(x, even_windows((5, 7), 7)), attn(x, one_window((5, 7))))


def test_prefix_tokens_see_all_windows_and_a_window_itself_and_them() -> None:
    attn, windows = make('mixed'), even_windows((4, 6), 3)  # 2 x 2 windows of 2 x 3
    x = torch.randn(1, 2 + 24, 24, requires_grad=True)
    out = attn(x, windows)
    for token, seen in ((0, range(26)), (1, range(26)), (2, range(8)), (25, [0, 1, *range(20, 26)])):
        (grad,) = torch.autograd.grad(out[0, token].sum(), x, retain_graph=True)
        assert grad[0].abs().sum(-1).nonzero().flatten().tolist() == list(seen)


def test_an_empty_batch_is_an_empty_batch() -> None:
    x = torch.randn(0, 35, 24, requires_grad=True)
    out = make('mixed')(x, even_windows((5, 7), 3))
    out.sum().backward()
    assert out.shape == x.grad.shape == (0, 35, 24)


def test_frequencies_that_were_cast_to_half_are_turned_into_angles_in_float32() -> None:
    """Sharded training with half precision parameters casts them."""
    attn, x, windows = make('mixed'), torch.randn(1, 35, 24), even_windows((5, 7), 3)
    rounded = attn.rope.freqs.detach().bfloat16()
    state = {name: value.requires_grad_() for name, value in attn.state_dict().items()}
    grads = []
    for freqs in (rounded.float().requires_grad_(), rounded.clone().requires_grad_()):
        out = torch.func.functional_call(attn, state | {'rope.freqs': freqs}, (x, windows))
        grads.append((out, *torch.autograd.grad(out.square().sum(), freqs)))
    assert torch.equal(grads[0][0], grads[1][0])
    assert grads[1][1].dtype == torch.bfloat16 and torch.equal(grads[0][1].bfloat16(), grads[1][1])


@pytest.mark.parametrize('batch', [1, 3])
@pytest.mark.parametrize(
    'windows, order, prefix',
    [
        (one_window((3, 5)), None, 0),
        (one_window((3, 5)), None, 2),
        (even_windows((7, 5), 3), None, 0),
        (one_window((7, 5)), even_windows((7, 5), 3), 0),
    ],
)
def test_inference_splits_as_the_definition(batch: int, windows, order, prefix: int) -> None:
    """Values are not copied when nothing is kept for a backward pass: that is another path."""
    height, width = windows.grid
    qkv = torch.randn(batch, prefix + height * width, 3, 2, 8, dtype=torch.float64)
    angles = RoPE(8, 2, 'mixed', 10.0).double()(windows.largest).detach()
    with torch.no_grad():
        ours = split_qkv(qkv, angles, windows, order)
    for mine, its in zip(ours, _split(qkv, angles, windows, order, False), strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=1e-12)


def oracle_with_mask(attn: Attention, x: torch.Tensor, grid: tuple[int, int], mask: torch.Tensor) -> torch.Tensor:
    """Attention in float64 with the whole N x N table of who attends to whom; the oracle gives what is unmasked."""
    weights = {name: value.double() for name, value in attn.state_dict().items()}
    prefix = x.shape[1] - grid[0] * grid[1]
    qkv = x.double() @ weights['qkv.weight'].T + weights['qkv.bias']
    q, k, v = qkv.unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    if attn.rope is not None:
        rows, cols = (axis.flatten() for axis in torch.meshgrid(*map(torch.arange, grid), indexing='ij'))
        freqs = attn.rope.freqs.detach().double()
        angles = (cols[:, None, None] * freqs[0] + rows[:, None, None] * freqs[1]).transpose(0, 1)  # (heads, N, pairs)
        turn = torch.polar(torch.ones_like(angles), angles)
        for part in (q, k):
            pairs = torch.view_as_complex(part[:, :, prefix:].unflatten(-1, (-1, 2)).contiguous())
            part[:, :, prefix:] = torch.view_as_real(pairs * turn).flatten(-2)
    may = torch.ones(len(x), x.shape[1], x.shape[1], dtype=torch.bool)
    may[:, : mask.shape[1]] = mask
    logits = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~may[:, None], -torch.inf)
    out = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
    return out @ weights['proj.weight'].T + weights['proj.bias']


@pytest.mark.parametrize('rope', ['mixed', 'axial', None])
@pytest.mark.parametrize('masked', [1, 3, 5])
@pytest.mark.parametrize('grid', GRIDS)
def test_a_mask_holds_for_the_first_tokens_alone(
    rope: str | None, masked: int, grid: tuple[int, int], close: Callable[..., None]
) -> None:
    attn, x = make(rope), torch.randn(2, 5 + grid[0] * grid[1], 24)
    mask = torch.rand(2, masked, x.shape[1]) < 0.5
    mask[:, :, 0] = True
    close(attn(x, one_window(grid), mask=mask), oracle_with_mask(attn, x, grid, mask))
    everything = torch.ones_like(mask)
    close(attn(x, one_window(grid), mask=everything), oracle(attn, x, grid, num_prefix=5))


def test_a_mask_works_across_windows(close: Callable[..., None]) -> None:
    """Prefix tokens stay in front; the columns of the mask are in the order of the tokens."""
    attn, x, grid = make('mixed'), torch.randn(2, 4 + 5 * 9, 24), (5, 9)
    mask = torch.rand(2, 3, x.shape[1]) < 0.5
    windows, row_by_row = even_windows(grid, 4), one_window(grid)

    def moved(y: torch.Tensor, *cuts: Windows) -> torch.Tensor:
        return torch.cat((y[:, :4], reorder(y[:, 4:], *cuts)), dim=1)

    in_windows = moved(mask.mT, row_by_row, windows).mT
    ours = attn(moved(x, row_by_row, windows), row_by_row, windows, in_windows)
    close(moved(ours, windows, row_by_row), attn(x, row_by_row, mask=mask))


def test_every_gradient_is_exact_with_a_mask() -> None:
    attn, x = make('mixed', 8, 2).double(), torch.randn(2, 3 + 2 * 3, 8, dtype=torch.double, requires_grad=True)
    mask = torch.rand(2, 2, 9) < 0.5
    names, params = zip(*attn.named_parameters())

    def forward(x: torch.Tensor, *params: torch.Tensor) -> torch.Tensor:
        kwargs = dict(windows=one_window((2, 3)), mask=mask)
        return torch.func.functional_call(attn, dict(zip(names, params)), (x,), kwargs)

    assert torch.autograd.gradcheck(forward, (x, *params))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_a_mask_under_autocast_stays_within_tolerance(dtype: torch.dtype, close: Callable[..., None]) -> None:
    attn, x = Attention(64, 4, 'mixed', 10.0), torch.randn(2, 3 + 9 * 13, 64)
    mask = torch.rand(2, 2, x.shape[1]) < 0.5
    with torch.autocast('cpu', dtype):
        ours = attn(x, one_window((9, 13)), mask=mask)
    assert ours.dtype == dtype
    close(ours, attn(x, one_window((9, 13)), mask=mask))


def test_no_attention_call_sees_a_mask_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, attend = [], torch.nn.functional.scaled_dot_product_attention

    def spy(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn_mask: torch.Tensor | None = None) -> torch.Tensor:
        calls.append((q.shape[2], None if attn_mask is None else tuple(attn_mask.shape)))
        return attend(q, k, v, attn_mask=attn_mask)

    monkeypatch.setattr('torch.nn.functional.scaled_dot_product_attention', spy)
    make('mixed')(torch.randn(2, 4 + 30, 24), one_window((5, 6)), mask=torch.ones(2, 3, 34, dtype=torch.bool))
    assert sorted(calls) == [(3, (2, 1, 3, 34)), (31, None)]


BOOL = dict(dtype=torch.bool)


@pytest.mark.parametrize(
    'mask, got',
    [
        (torch.ones(2, 3, 34, **BOOL), r'bool of shape \(2, 3, 34\)'),  # one query too many
        (torch.ones(1, 2, 34, **BOOL), r'\(1, 2, 34\)'),
        (torch.ones(2, 2, 32, **BOOL), r'\(2, 2, 32\)'),
        (torch.ones(2, 34, **BOOL), r'\(2, 34\)'),
        (torch.zeros(2, 2, 34), r'float32 of shape \(2, 2, 34\)'),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask: torch.Tensor, got: str) -> None:
    allowed = r'mask must be bool of shape \(2, at most 2 \(the prefix tokens\), 34\), but got .*'
    with pytest.raises(ValueError, match=allowed + got):
        make('mixed')(torch.randn(2, 2 + 32, 24), one_window((4, 8)), mask=mask)


def test_a_mask_among_windows_or_with_a_bias_is_refused() -> None:
    mask, x = torch.ones(1, 1, 33, dtype=torch.bool), torch.randn(1, 33, 24)
    with pytest.raises(ValueError, match=r'mask must be None with several windows, but got shape \(1, 1, 33\)'):
        make('mixed')(x, even_windows((4, 8), 4), mask=mask)
    with pytest.raises(ValueError, match=r'mask must be None with a relative position bias, but got'):
        make('mixed', rpb_window_size=8)(x, one_window((4, 8)), mask=mask)
