"""The Triton kernels against what PyTorch computes without them: on a GPU, or in Triton's interpreter."""

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
import torch
from torch import Tensor

from mmrope.layers import Block, RoPE, even_windows, kernels, one_window, shifted_windows
from mmrope.layers.block import _add
from mmrope.layers.qkv import _split, split_qkv

pytest.importorskip('triton', reason='Triton comes with PyTorch for Linux')

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
# name: windows, order, tokens without a place
CUTS = {
    'global': (one_window((3, 5)), None, 0),
    'prefix': (one_window((4, 3)), None, 2),
    'even': (even_windows((5, 3), 2), None, 0),
    'shifted': (shifted_windows((4, 8), 3, 1), None, 0),
    'global in window order': (one_window((5, 3)), even_windows((5, 3), 2), 0),
    'one token': (one_window((1, 1)), None, 0),
}
# angles of all heads, batch, heads, head_dim; the first has more pairs of channels than one program takes.
SHAPES = [(True, 3, 3, 48), (False, 3, 3, 16), (True, 1, 1, 80), (None, 2, 3, 5), (True, 0, 2, 16)]
# A few roundings of the dtype, on values of order 1. The interpreter truncates to bfloat16, where a GPU rounds.
ERROR = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


@pytest.fixture
def kernels_run(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have the kernels take all tensors; list the calls."""
    assert kernels._library() is not None
    calls = []

    class Operators:
        def __getattr__(self, name: str) -> Callable:
            calls.append(name)
            return getattr(torch.ops.mmrope, name)

    monkeypatch.setattr(kernels, 'take', lambda x: x.dtype in kernels.DTYPES)
    monkeypatch.setattr(kernels, '_operators', Operators)
    return calls


def results(split, qkv: Tensor, angles: Tensor | None, cut: tuple, packed: bool) -> list[Tensor]:
    """Queries, keys and values, and the gradients of ``qkv`` and of the angles; those of keys lie otherwise."""
    windows, order, _ = cut
    qkv = qkv.clone().requires_grad_()
    angles = None if angles is None else angles.clone().requires_grad_()
    outs = split(qkv * 1, angles, windows, order, packed)
    weights = [torch.linspace(-1, 1, out.numel(), device=DEVICE).view(out.shape) for out in outs]
    weights[1::3] = [weight.transpose(0, 1).contiguous().transpose(0, 1) for weight in weights[1::3]]
    loss = sum((out.to(weight) * weight).sum() for out, weight in zip(outs, weights))
    wanted = [qkv] if angles is None else [qkv, angles]
    return [*outs, *torch.autograd.grad(loss, wanted)]


@pytest.mark.parametrize('packed', [False, True], ids=['groups', 'packed'])
@pytest.mark.parametrize('own, batch, heads, head_dim', SHAPES)
@pytest.mark.parametrize('name', CUTS)
def test_the_kernels_do_what_the_definition_says(
    name: str,
    batch: int,
    heads: int,
    head_dim: int,
    own: bool | None,
    packed: bool,
    kernels_run: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In float32 with two images a program, in half precision with one."""
    windows, order, prefix = cut = CUTS[name]
    height, width = windows.grid
    qkv = torch.randn(batch, prefix + height * width, 3, heads, head_dim, device=DEVICE)
    shape = 2, max(windows.largest), heads if own else 1, head_dim // 2
    angles = None if own is None else 3 * torch.randn(shape, device=DEVICE)
    for dtype, images in ((torch.float32, 2), (torch.bfloat16 if packed else torch.float16, 1)):
        monkeypatch.setattr(kernels, '_images', lambda shape, images=images: images)
        ours = results(split_qkv, qkv.to(dtype), angles, cut, packed)
        double = None if angles is None else angles.double()
        theirs = results(_split, qkv.to(dtype).double(), double, cut, packed)
        for mine, its in zip(ours, theirs, strict=True):
            assert mine.shape == its.shape
            assert (mine.double() - its).norm() <= ERROR[dtype] * max(its.norm(), 1e-30), dtype
    assert ('unrotate' in kernels_run) == (head_dim % 2 == 0)


def test_a_program_takes_more_images_where_there_are_programs_enough() -> None:
    shapes = [(1, 4096), (8, 4096), (3, 4096), (2, 64), (0, 64)]
    assert [kernels._images(torch.Size((batch, tokens, 3, 12, 64))) for batch, tokens in shapes] == [1, 8, 3, 1, 1]


def test_the_kernels_give_the_same_bits_again(kernels_run: list[str]) -> None:
    cut = CUTS['shifted']
    qkv, angles = torch.randn(3, 32, 3, 2, 16, device=DEVICE), RoPE(16, 2, 'mixed', 10.0).to(DEVICE)((3, 3)).detach()
    first, second = (results(split_qkv, qkv, angles, cut, True) for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('drop_path_rate', [0.0, 0.5])
def test_a_block_learns_the_same_with_the_kernels(
    drop_path_rate: float, dtype: torch.dtype, kernels_run: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    block = Block(32, 2, 2.0, 'mixed', 10.0, layer_scale_init_value=0.5, drop_path_rate=drop_path_rate).to(DEVICE)
    x, windows = torch.randn(3, 15, 32, device=DEVICE, requires_grad=True), even_windows((5, 3), 2)
    grads = []
    for with_kernels in (True, False):
        if not with_kernels:
            monkeypatch.setattr(kernels, 'take', lambda x: False)
        torch.manual_seed(0)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = block(x, windows)
        grads.append([out.detach(), *torch.autograd.grad(out.float().sin().sum(), [x, *block.parameters()])])
    assert {'rotate', 'unrotate', 'scale_gradients'} <= set(kernels_run)
    for ours, theirs in zip(*grads, strict=True):
        assert (ours - theirs).norm() <= ERROR[dtype] * 4 * max(theirs.norm(), 1e-30)


@pytest.mark.parametrize('mode', ['mixed', 'axial'])
def test_angles_of_a_larger_grid_are_cropped_and_others_refused(mode: str, kernels_run: list[str]) -> None:
    windows, qkv = even_windows((7, 5), 3), torch.randn(2, 35, 3, 2, 16, device=DEVICE)
    rope = RoPE(16, 2, mode, 10.0).to(DEVICE)
    angles = rope((8, 4)).detach()
    ours, theirs = (results(split_qkv, qkv, x, (windows, None, 0), True) for x in (angles, angles[:, :3]))
    assert all(map(torch.equal, ours[:-1], theirs[:-1]))
    assert torch.equal(ours[-1][:, :3], theirs[-1]) and not ours[-1][:, 3:].any()
    for wrong in (
        angles[:, :2],
        angles[:1],
        angles[..., :1],
        rope.freqs,
        angles.expand(-1, -1, 2, -1).repeat(1, 1, 2, 1),
    ):
        with pytest.raises(ValueError, match=rf'angles .*{re.escape(str(tuple(wrong.shape)))}'):
            split_qkv(qkv, wrong, windows)


def test_threads_define_the_operators_once() -> None:
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(8) as pool:
        made = []
        patch.setattr(kernels, '_library', cache(lambda: made.append(time.sleep(0.01)) or True))
        assert all(pool.map(lambda _: kernels._has_operators(), range(8)))
    assert len(made) == 1


def test_a_frozen_scale_keeps_no_branch(kernels_run: list[str]) -> None:
    block = Block(32, 2, 2.0, None, None, layer_scale_init_value=0.5).to(DEVICE)
    block.gamma_1.requires_grad_(False)
    branch = torch.randn(2, 5, 32, device=DEVICE, requires_grad=True)
    x = torch.randn(2, 5, 32, device=DEVICE)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        out = _add(x, branch, block.gamma_1)
    assert kept == [torch.Size([32])]
    (grad,) = torch.autograd.grad(out.sum(), branch)
    assert torch.equal(grad, block.gamma_1.expand_as(branch))
