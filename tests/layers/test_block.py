from collections.abc import Callable

import pytest
import torch
from timm.layers import SwiGLU
from torch import nn

from mmrope.layers import Block, block, even_windows, one_window


def make(**kwargs) -> Block:
    made = Block(16, 2, 2.0, 'mixed', 10.0, layer_scale_init_value=0.5, **kwargs)
    for param in made.parameters():
        nn.init.normal_(param, std=0.3)
    return made


def plain(made: Block, x: torch.Tensor, windows) -> torch.Tensor:
    x = x + made.gamma_1 * made.attn(made.norm1(x), windows)
    return x + made.gamma_2 * made.mlp(made.norm2(x))


@pytest.mark.parametrize('chunk', [1, 100, 32 * 7 * 2, 10**9])
@pytest.mark.parametrize('batch', [0, 1, 2])
def test_the_mlp_takes_any_number_of_tokens_at_a_time(
    chunk, batch: int, monkeypatch: pytest.MonkeyPatch, close: Callable[..., None]
) -> None:
    monkeypatch.setattr(block, 'CHUNK', chunk)
    made, x, windows = make().eval(), torch.randn(batch, 5 * 7, 16), even_windows((5, 7), 3)
    sizes, mlp = [], made.mlp.forward
    monkeypatch.setattr(made.mlp, 'forward', lambda x: sizes.append(x.shape[1]) or mlp(x))
    with torch.no_grad():
        ours = made(x, windows)
    assert sum(sizes) == 35
    if batch:
        assert max(sizes) <= max(1, chunk // (32 * batch))
    close(ours, plain(made, x, windows))


@pytest.mark.parametrize('part', ['mlp', 'mlp.fc1', 'mlp.act', 'norm2'])
@pytest.mark.parametrize('kind', ['forward', 'forward_pre', 'full_backward', 'full_backward_pre'])
def test_hooks_see_all_tokens(part: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, 'CHUNK', 1)
    made, calls = make(), []
    getattr(made.get_submodule(part), f'register_{kind}_hook')(lambda *args: calls.append(1) or None)
    made(torch.randn(2, 12, 16, requires_grad=True), one_window((3, 4))).sum().backward()
    assert len(calls) == 1


class MixesTokens(nn.Module):
    """An MLP with a convolution between neighbouring tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(16, 16, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x.mT).mT


@pytest.mark.parametrize('mlp', [lambda: SwiGLU(16, 32), MixesTokens, nn.Identity])
def test_any_mlp_takes_all_tokens_at_once(mlp, monkeypatch: pytest.MonkeyPatch, close: Callable[..., None]) -> None:
    monkeypatch.setattr(block, 'CHUNK', 1)
    made, x, windows = make(), torch.randn(2, 12, 16), one_window((3, 4))
    made.mlp = mlp()
    close(made(x, windows), plain(made, x, windows))


def test_training_in_parts_is_training_whole(monkeypatch: pytest.MonkeyPatch, close: Callable[..., None]) -> None:
    """Gradients too, and a sample that is dropped is dropped in every part."""
    made, x, windows = make(drop_path_rate=0.5), torch.randn(8, 12, 16, requires_grad=True), one_window((3, 4))
    results = []
    for chunk in (1, 10**9):
        monkeypatch.setattr(block, 'CHUNK', chunk)
        torch.manual_seed(0)
        out = made(x, windows)
        results.append([out, *torch.autograd.grad(out.square().mean(), [x, *made.parameters()])])
    for ours, whole in zip(*results, strict=True):
        close(ours, whole)


def test_the_mlp_is_whole_where_it_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, 'CHUNK', 1)
    monkeypatch.setattr(block, 'is_tracing', lambda: True)
    made, calls = make(), []
    mlp = made.mlp.forward
    monkeypatch.setattr(made.mlp, 'forward', lambda x: calls.append(1) or mlp(x))
    made(torch.randn(2, 12, 16), one_window((3, 4)))
    assert len(calls) == 1


@pytest.mark.parametrize('gamma', [True, False])
def test_drop_path_drops_whole_samples_and_scales_the_others(gamma: bool) -> None:
    made = make(drop_path_rate=0.75)
    if not gamma:
        made.gamma_1 = made.gamma_2 = None
    x, windows = torch.randn(4000, 2, 16), one_window((1, 2))
    nn.init.zeros_(made.attn.proj.weight)
    nn.init.zeros_(made.attn.proj.bias)  # one branch is left
    change = made(x, windows) - x
    kept = change.abs().amax((1, 2)) > 0
    assert 0.2 < kept.float().mean() < 0.3
    branch = made.mlp(made.norm2(x)) * (made.gamma_2 if gamma else 1)
    torch.testing.assert_close(change[kept], 4 * branch[kept], rtol=1e-4, atol=1e-4)
    made.eval()
    torch.testing.assert_close(made(x, windows) - x, branch, rtol=1e-4, atol=1e-4)


def test_layer_scale_learns_from_the_samples_that_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kept branch is twice as large at a drop path rate of 0.5, and so is what LayerScale learns from it."""
    made, x, windows = make(drop_path_rate=0.5).double(), torch.randn(6, 6, 16).double(), one_window((2, 3))
    weight, kept = torch.randn_like(x), torch.tensor([0.0, 2.0, 2.0, 0.0, 2.0, 0.0]).double().view(6, 1, 1)
    monkeypatch.setattr(made.drop_path, 'forward', lambda scale: scale * kept)
    ours = torch.autograd.grad((made(x, windows) * weight).sum(), [made.gamma_1, made.gamma_2])
    middle = x + kept * made.gamma_1 * made.attn(made.norm1(x), windows)
    out = middle + kept * made.gamma_2 * made.mlp(made.norm2(middle))
    theirs = torch.autograd.grad((out * weight).sum(), [made.gamma_1, made.gamma_2])
    for mine, its in zip(ours, theirs):
        torch.testing.assert_close(mine, its, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_branches_add_to_a_float32_stream(dtype: torch.dtype) -> None:
    made, x = make().eval(), torch.randn(1, 12, 16)
    with torch.autocast('cpu', dtype):
        out = made(x, one_window((3, 4)))
    assert out.dtype == torch.float32
    assert (out - plain(made, x, one_window((3, 4)))).norm() < 0.02 * out.norm()


def test_a_block_runs_on_meta() -> None:
    with torch.device('meta'):
        made, x = make(drop_path_rate=0.1), torch.randn(2, 35, 16)
        assert made(x, even_windows((5, 7), 3)).shape == (2, 35, 16)
