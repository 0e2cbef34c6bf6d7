"""Windows in one call: what is handed to PyTorch's attention over sequences of unequal length, and when."""

from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from fake_cuda import FusedAttention, autocast_of_a_gpu
from torch import Tensor
from torch._subclasses import FakeTensorMode

from mmrope.layers import Attention, attention, even_windows, one_window, shifted_windows, varlen
from tests.helpers.fake_gpu import needs_fake_gpu


def one_by_one(
    q: Tensor, k: Tensor, v: Tensor, ends_q: Tensor, ends_k: Tensor, longest_q: int, longest_k: int
) -> Tensor:
    """PyTorch's ``varlen_attn`` as a loop over sequences."""
    lengths = ends_q.diff().tolist()
    assert ends_q.dtype == torch.int32 and torch.equal(ends_q, ends_k)
    assert ends_q[0] == 0 and sum(lengths) == len(q) and longest_q == longest_k == max(lengths)
    parts = zip(*(x.transpose(0, 1).split(lengths, dim=1) for x in (q, k, v)))
    return torch.cat([F.scaled_dot_product_attention(*part) for part in parts], dim=1).transpose(0, 1).contiguous()


@pytest.mark.parametrize('rope', ['mixed', None])
@pytest.mark.parametrize(
    'windows', [even_windows((5, 7), 3), shifted_windows((7, 9), 4, 2), shifted_windows((9, 4), 4)]
)
def test_windows_in_one_call_are_windows_group_by_group(
    windows, rope: str | None, monkeypatch: pytest.MonkeyPatch, close: Callable[..., None]
) -> None:
    attn = Attention(24, 3, rope, 10.0).double()
    x = torch.randn(2, windows.grid[0] * windows.grid[1], 24, dtype=torch.double, requires_grad=True)
    results = []
    for packed in (False, True):
        monkeypatch.setattr(varlen, 'takes', lambda *args, packed=packed: packed)
        monkeypatch.setattr(varlen, '_varlen', lambda: SimpleNamespace(varlen_attn=one_by_one))
        out = attn(x, windows)
        results.append([out, *torch.autograd.grad(out.sin().sum(), [x, *attn.parameters()])])
    for apart, ours in zip(*results, strict=True):
        close(ours, apart)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Calls of either attention on fake tensors."""
    if varlen._varlen() is None:
        pytest.skip('this PyTorch has no attention over sequences of unequal length')
    calls, attend, in_groups = [], varlen.attend, attention._attend
    monkeypatch.setattr(varlen, 'attend', lambda *args: calls.append('one') or attend(*args))
    monkeypatch.setattr(attention, '_attend', lambda *args: calls.append('group') or in_groups(*args))
    return calls


CASES = {
    'several windows': ({}, 'one'),
    'one window': (dict(windows=one_window((6, 6))), 'group'),
    'float32': (dict(dtype=torch.float32), 'group'),
    'a bias': (dict(rpb_window_size=4), 'group'),
    'head_dim of 12': (dict(dim=24), 'group'),
    'head_dim above 256': (dict(dim=528), 'group'),
    'no images': (dict(batch=0), 'group'),
    'most sequences': (dict(most=8), 'one'),
    'more sequences': (dict(most=7), 'group'),
    'switched off': (dict(off=True), 'group'),
}


@pytest.mark.parametrize('case, expected', CASES.values(), ids=CASES.keys())
def test_one_call_takes_the_supported_cases(
    case: dict, expected: str, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = dict(windows=even_windows((6, 6), 4), dtype=torch.bfloat16, dim=32, batch=2) | case
    monkeypatch.setattr(varlen, 'MOST_SEQUENCES', case.get('most', varlen.MOST_SEQUENCES))
    half = case['dtype'] != torch.float32
    with FakeTensorMode(), FusedAttention(), autocast_of_a_gpu(), torch.device('cuda'), ExitStack() as stack:
        attn = Attention(case['dim'], 2, 'mixed', 10.0, case.get('rpb_window_size'))
        if case.get('off'):
            stack.enter_context(varlen.switched_off())
        with torch.autocast('cuda', torch.bfloat16, enabled=half):
            attn(torch.empty(case['batch'], 36, case['dim']), case['windows'])
    assert set(calls) == {expected}


@needs_fake_gpu
def test_no_launch_takes_more_windows_than_cuda_does(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(attention, 'MOST_WINDOWS', 5)
    monkeypatch.setattr(F, 'scaled_dot_product_attention', lambda q, *args, **kwargs: seen.append(len(q)) or q)
    with FakeTensorMode(), torch.device('cuda'):
        out = Attention(32, 2, 'mixed', 10.0)(torch.empty(3, 36, 32), even_windows((6, 6), 3))
    assert sum(seen) == 12 and max(seen) <= 5 and out.shape == (3, 36, 32)
