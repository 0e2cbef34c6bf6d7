"""The Triton kernels against what PyTorch computes without them: on a GPU, or in Triton's interpreter."""

import pytest
import torch
from torch import Tensor

from mmrope.layers import Block, RoPE, even_windows, kernels, one_window, shifted_windows
from mmrope.layers.qkv import _split, split_qkv

pytest.importorskip('triton', reason='Triton comes with PyTorch for Linux')

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
# name: windows, order, tokens without a place
CUTS = {
    'global': (one_window((3, 5)), None, 0),
    'prefix': (one_window((4, 3)), None, 2),
    'even': (even_windows((7, 5), 3), None, 0),
    'shifted': (shifted_windows((7, 9), 4, 2), None, 0),
    'global in window order': (one_window((7, 5)), even_windows((7, 5), 3), 0),
    'one token': (one_window((1, 1)), None, 0),
}
SHAPES = [('mixed', 3, 3, 32), ('axial', 1, 1, 80), (None, 2, 2, 16), ('mixed', 0, 2, 16)]
# A few roundings of the dtype, on values of order 1. The interpreter truncates to bfloat16, where a GPU rounds.
ERROR = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


@pytest.fixture
def kernels_run(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have the kernels take all tensors; list the calls."""
    assert kernels._library() is not None
    calls = []

    class Operators:
        def __getattr__(self, name: str):
            calls.append(name)
            return getattr(torch.ops.mmrope, name)

    monkeypatch.setattr(kernels, 'take', lambda x: x.dtype in kernels.DTYPES)
    monkeypatch.setattr(kernels, '_operators', Operators)
    return calls


def results(split, qkv: Tensor, angles: Tensor | None, cut: tuple, packed: bool) -> list[Tensor]:
    """Queries, keys and values, and the gradients of ``qkv`` and of the angles."""
    windows, order, _ = cut
    qkv = qkv.clone().requires_grad_()
    angles = None if angles is None else angles.clone().requires_grad_()
    outs = split(qkv * 1, angles, windows, order, packed)
    weights = [torch.linspace(-1, 1, out.numel(), device=DEVICE).view(out.shape) for out in outs]
    loss = sum((out.to(weight) * weight).sum() for out, weight in zip(outs, weights))
    wanted = [qkv] if angles is None else [qkv, angles]
    return [*outs, *torch.autograd.grad(loss, wanted)]


@pytest.mark.parametrize('packed', [False, True], ids=['groups', 'packed'])
@pytest.mark.parametrize('mode, batch, heads, head_dim', SHAPES)
@pytest.mark.parametrize('name', CUTS)
def test_the_kernels_do_what_the_definition_says(name, batch, heads, head_dim, mode, packed, kernels_run):
    windows, order, prefix = cut = CUTS[name]
    height, width = windows.grid
    qkv = torch.randn(batch, prefix + height * width, 3, heads, head_dim, device=DEVICE)
    angles = None if mode is None else RoPE(head_dim, heads, mode, 10.0).to(DEVICE)(windows.largest).detach()
    for dtype, error in ERROR.items():
        ours = results(split_qkv, qkv.to(dtype), angles, cut, packed)
        double = None if angles is None else angles.double()
        theirs = results(_split, qkv.to(dtype).double(), double, cut, packed)
        for mine, its in zip(ours, theirs, strict=True):
            assert mine.shape == its.shape
            assert (mine.double() - its).norm() <= error * max(its.norm(), 1e-30), dtype
    assert 'unrotate' in kernels_run


def test_the_kernels_give_the_same_bits_again(kernels_run):
    cut = CUTS['shifted']
    qkv, angles = torch.randn(3, 63, 3, 2, 16, device=DEVICE), RoPE(16, 2, 'mixed', 10.0).to(DEVICE)((4, 4)).detach()
    first, second = (results(split_qkv, qkv, angles, cut, True) for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('drop_path_rate', [0.0, 0.5])
def test_a_block_learns_the_same_with_the_kernels(drop_path_rate, dtype, kernels_run, monkeypatch):
    block = Block(32, 2, 2.0, 'mixed', 10.0, layer_scale_init_value=0.5, drop_path_rate=drop_path_rate).to(DEVICE)
    x, windows = torch.randn(4, 35, 32, device=DEVICE, requires_grad=True), even_windows((7, 5), 3)
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
