import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmrope.layers import Attention, one_window
from mmrope.layers.rope import (
    RoPE,
    axial_freqs,
    axis_angles,
    join_axes,
    mixed_freqs,
    rotary_table,
    rotate,
    rotate_into,
)

GRIDS = [(1, 1), (1, 7), (14, 14), (5, 12), (12, 5), (33, 2)]


def oracle_angles(freqs: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Angles by the formula, a loop over tokens, heads and pairs: (heads, H * W, head_dim // 2)."""
    _, heads, pairs = freqs.shape
    angles = np.zeros((heads, grid[0] * grid[1], pairs))
    for h in range(grid[0]):
        for w in range(grid[1]):
            for n in range(heads):
                for d in range(pairs):
                    angles[n, h * grid[1] + w, d] = w * freqs[0, n, d] + h * freqs[1, n, d]
    return angles


def oracle_rotate(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Pairs (2d, 2d + 1) of (B, heads, N, head_dim) as complex numbers times exp(i angle)."""
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)
    out = np.empty_like(x)
    out[..., 0::2], out[..., 1::2] = turned.real, turned.imag
    return out


def random_freqs(heads: int = 3, head_dim: int = 16, theta: float = 10.0) -> torch.Tensor:
    return mixed_freqs(head_dim, torch.rand(heads) * 2 * math.pi, theta)


@pytest.mark.parametrize('grid', GRIDS)
@pytest.mark.parametrize('heads', [1, 3])
@pytest.mark.parametrize('compiling', [False, True])
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_rotation_equals_complex_oracle(
    grid: tuple[int, int],
    heads: int,
    compiling: bool,
    dtype: torch.dtype,
    close: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: compiling)
    freqs = random_freqs(heads)
    x = torch.randn(2, 3, grid[0] * grid[1], 16).to(dtype)
    theirs = oracle_rotate(x.double().numpy(), oracle_angles(freqs.double().numpy(), grid))
    table = rotary_table(freqs.double() if dtype == torch.float64 else freqs, grid)
    ours = rotate(x, table)
    assert ours.dtype == dtype
    close(ours, torch.from_numpy(theirs))
    if not compiling:
        rotate_into(x, x, table)
        assert torch.equal(x, ours)


def test_float32_table_is_exact_to_1e_5_on_a_128_grid() -> None:
    freqs = random_freqs(2, 64)
    table = rotary_table(freqs, (128, 128))
    exact = rotary_table(freqs.double(), (128, 128))
    assert (table - exact).abs().max() < 1e-5


@pytest.mark.parametrize('head_dim, theta', [(16, 10.0), (64, 10.0), (32, 50.0), (4, 100.0)])
def test_mixed_frequencies_follow_the_paper(head_dim: int, theta: float) -> None:
    angles = torch.rand(5) * 2 * math.pi
    freqs = mixed_freqs(head_dim, angles, theta)
    assert freqs.shape == (2, 5, head_dim // 2)
    for n in range(5):
        for j in range(head_dim // 4):
            a, magnitude = angles[n].item(), theta ** (-4 * j / head_dim)
            expected = [
                [magnitude * math.cos(a), magnitude * math.cos(a + math.pi / 2)],
                [magnitude * math.sin(a), magnitude * math.sin(a + math.pi / 2)],
            ]
            torch.testing.assert_close(freqs[:, n, [j, head_dim // 4 + j]], torch.tensor(expected), rtol=0, atol=1e-6)


def test_axial_frequencies_are_mixed_at_angle_zero_and_pure() -> None:
    freqs = axial_freqs(16, 100.0)
    torch.testing.assert_close(freqs, mixed_freqs(16, torch.zeros(1), 100.0), rtol=0, atol=1e-7)
    magnitudes = torch.tensor([1.0, 100**-0.25, 100**-0.5, 100**-0.75])
    torch.testing.assert_close(freqs[0, 0], torch.cat((magnitudes, torch.zeros(4))))
    torch.testing.assert_close(freqs[1, 0], torch.cat((torch.zeros(4), magnitudes)))


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 4), st.sampled_from([4, 8, 20, 64]))
@settings(max_examples=50, deadline=None)
def test_rotation_keeps_norms_and_leaves_the_first_token(height, width, heads, head_dim) -> None:
    x = torch.randn(1, heads, height * width, head_dim)
    turned = rotate(x, rotary_table(random_freqs(heads, head_dim), (height, width)))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), rtol=1e-5, atol=1e-5)
    assert torch.equal(turned[:, :, 0], x[:, :, 0])


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 6), st.integers(0, 6))
@settings(max_examples=50, deadline=None)
def test_logits_depend_on_the_offset_only(h1, w1, h2, w2, down, right) -> None:
    q, k = torch.randn(2, 3, 16).double()
    table = rotary_table(random_freqs().double(), (16, 16)).unflatten(1, (16, 16))

    def logits(hq: int, wq: int, hk: int, wk: int) -> torch.Tensor:
        return (rotate(q, table[:, hq, wq]) * rotate(k, table[:, hk, wk])).sum(-1)

    shifted = logits(h1 + down, w1 + right, h2 + down, w2 + right)
    torch.testing.assert_close(logits(h1, w1, h2, w2), shifted, rtol=0, atol=1e-10)


def test_transposed_image_with_swapped_axes_is_the_transposed_result() -> None:
    freqs, x = random_freqs().double(), torch.randn(3, 4, 9, 16).double()
    straight = rotate(x, rotary_table(freqs, (4, 9)).unflatten(1, (4, 9)))
    swapped = rotate(x.transpose(1, 2), rotary_table(freqs.flip(0), (9, 4)).unflatten(1, (9, 4)))
    torch.testing.assert_close(swapped.transpose(1, 2), straight, rtol=0, atol=1e-12)


def test_table_learns_in_double_precision() -> None:
    freqs = random_freqs(2, 8).double().requires_grad_()
    x = torch.randn(1, 2, 12, 8).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, freqs: rotate(x, rotary_table(freqs, (3, 4))), (x, freqs))


def test_autocast_does_not_touch_the_angles() -> None:
    freqs = random_freqs(2, 64)
    with torch.autocast('cpu', torch.bfloat16):
        table = rotary_table(freqs, (64, 64))
    assert table.dtype == torch.float32
    assert torch.equal(table, rotary_table(freqs, (64, 64)))


def test_module_draws_one_angle_a_head() -> None:
    freqs = RoPE(16, 6, 'mixed', 10.0).freqs
    angles = torch.atan2(freqs[1], freqs[0])
    assert torch.allclose(angles[:, :1].cos(), angles[:, :4].cos(), atol=1e-5)
    assert len(set(angles[:, 0].tolist())) == 6


def test_only_mixed_frequencies_learn_and_are_stored() -> None:
    mixed, axial = RoPE(16, 2, 'mixed', 10.0), RoPE(16, 2, 'axial', 100.0)
    assert list(mixed.state_dict()) == ['freqs'] and mixed.freqs.requires_grad
    assert not axial.state_dict() and not list(axial.parameters())


def table_of(rope: RoPE, grid: tuple[int, int]) -> torch.Tensor:
    return join_axes(rope(grid), grid).transpose(0, 1)


def adam_step(rope: RoPE) -> None:
    rope.freqs.grad = torch.ones_like(rope.freqs)
    torch.optim.AdamW(rope.parameters(), lr=0.1, fused=True).step()


def as_averages_are_written(rope: RoPE) -> None:
    rope.freqs.data.mul_(0.5).add_(torch.randn_like(rope.freqs))


CHANGES = {
    'load_state_dict': lambda rope: rope.load_state_dict(RoPE(16, 2, 'mixed', 10.0).state_dict()),
    'a fused optimiser': adam_step,
    'in place': lambda rope: rope.freqs.data.mul_(1.5),
    'new storage': lambda rope: setattr(rope.freqs, 'data', torch.randn_like(rope.freqs)),
    'to(dtype)': lambda rope: rope.to(torch.float64),
    'an average': as_averages_are_written,
}


@pytest.mark.parametrize('mode', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES.keys())
def test_angles_follow_the_frequencies_however_they_change(change, mode: bool) -> None:
    rope = RoPE(16, 2, 'mixed', 10.0).train(mode)
    before = rope((5, 6))
    change(rope)
    after = rope((5, 6))
    assert torch.equal(after, axis_angles(rope.freqs, (5, 6)))
    assert after.dtype != before.dtype or not torch.equal(after, before)


@pytest.mark.parametrize('mode', ['mixed', 'axial'])
def test_angles_are_those_of_the_grid_and_not_of_its_token_count(mode: str) -> None:
    rope = RoPE(16, 2, mode, 10.0)
    for grid in [(16, 16), (8, 32), (32, 8), (16, 16), (1, 256)]:
        assert torch.equal(table_of(rope, grid), rotary_table(rope.freqs, grid))


def test_positions_are_steps_from_a_start() -> None:
    freqs, grid, step, start = random_freqs().double(), (5, 3), (0.5, 2.0), (-1.0, 0.25)
    table = rotary_table(freqs, grid, step, start).unflatten(1, grid)
    for h, w in [(0, 0), (4, 0), (0, 2), (3, 1)]:
        angles = (start[1] + step[1] * w) * freqs[0] + (start[0] + step[0] * h) * freqs[1]
        expected = torch.stack((angles.cos(), angles.sin()), dim=-1)
        torch.testing.assert_close(table[:, h, w], expected, rtol=0, atol=1e-12)


def test_learning_frequencies_get_a_gradient_in_train_and_eval() -> None:
    rope = RoPE(16, 2, 'mixed', 10.0)
    for mode in (True, False):
        rope.train(mode).zero_grad()
        rope((3, 4)).cos().sum().backward()
        assert rope.freqs.grad.abs().sum() > 0


def test_positions_made_in_inference_mode_serve_training() -> None:
    rope = RoPE(16, 2, 'mixed', 10.0)
    with torch.inference_mode():
        rope((3, 77))
    rope((3, 77)).cos().sum().backward()
    assert rope.freqs.grad is not None


def test_module_made_in_inference_mode_works() -> None:
    with torch.inference_mode():
        rope = RoPE(16, 2, 'mixed', 10.0).eval()
        assert torch.equal(table_of(rope, (3, 4)), rotary_table(rope.freqs, (3, 4)))


def test_many_threads_see_their_own_grids() -> None:
    rope = RoPE(16, 2, 'mixed', 10.0).eval().requires_grad_(False)
    grids = [(height, 3) for height in range(1, 30)] * 5
    with ThreadPoolExecutor(8) as pool:
        for grid, angles in zip(grids, pool.map(rope, grids)):
            assert torch.equal(angles, axis_angles(rope.freqs, grid))


@pytest.mark.parametrize('mode', ['mixed', 'axial'])
@pytest.mark.parametrize('assign', [False, True], ids=['to_empty', 'assign'])
def test_frequencies_survive_construction_on_meta(mode: str, assign: bool) -> None:
    real = nn.Sequential(Attention(32, 2, mode, 100.0))
    with torch.device('meta'):
        model = nn.Sequential(Attention(32, 2, mode, 100.0))
    if not assign:
        model.to_empty(device='cpu')
    model.load_state_dict(real.state_dict(), assign=assign)
    assert torch.equal(model[0].rope.freqs, real[0].rope.freqs)
    x = torch.randn(1, 12, 32)
    assert torch.equal(model[0](x, one_window((3, 4))), real[0](x, one_window((3, 4))))


def test_reset_parameters_draws_directions_anew() -> None:
    rope = RoPE(16, 3, 'mixed', 10.0)
    before = rope.freqs.detach().clone()
    rope.reset_parameters()
    assert not torch.equal(rope.freqs, before)
    torch.testing.assert_close(rope.freqs.norm(dim=0), before.norm(dim=0))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('mode', ['mixed', 'axial'])
def test_half_models_keep_float32_frequencies(mode: str, dtype: torch.dtype) -> None:
    rope = RoPE(16, 2, mode, 10.0)
    before = rope.freqs.detach().clone()
    rope.to(dtype)
    assert rope.freqs.dtype == torch.float32 and torch.equal(rope.freqs, before)
    assert rope.double().freqs.dtype == torch.float64


@pytest.mark.parametrize(
    'arguments, named',
    [
        ((16, 2, 'learned', 10.0), "mode .*'learned'"),
        ((6, 2, 'mixed', 10.0), 'head_dim .* 6'),
        ((0, 2, 'axial', 10.0), 'head_dim .* 0'),
        ((16, 2, 'mixed', 0.0), 'theta .* 0'),
        ((16, 2, 'axial', -1.0), 'theta .* -1'),
        ((16, 2, 'axial', math.nan), 'theta .* nan'),
        ((16, 2, 'axial', math.inf), 'theta .* inf'),
    ],
)
def test_wrong_arguments_are_named(arguments, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        RoPE(*arguments)


def test_rotation_into_memory_that_is_laid_out_otherwise() -> None:
    x, table = torch.randn(6, 4), rotary_table(random_freqs(1, 4), (2, 3))[0]
    out = torch.empty(4, 6).T
    rotate_into(out, x, table)
    assert torch.equal(out, rotate(x, table))
