import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrope.layers.windows import Span, cut, even_windows, restore, shifted_windows

lengths = st.integers(1, 40)


def window_ids(grid: tuple[int, int], windows) -> torch.Tensor:
    """Number of the window each token lies in, by the definition of a span: (H, W)."""
    axes = []
    for length, spans in zip(grid, windows):
        ids = []
        for span in spans:
            assert span.start == len(ids)
            for number in range(span.count):
                ids += [(span.start, number)] * span.size
        assert len(ids) == length
        order = {key: i for i, key in enumerate(dict.fromkeys(ids))}
        axes.append(torch.tensor([order[key] for key in ids]))
    return axes[0][:, None] * 1000 + axes[1][None]


def brute_force(x: torch.Tensor, ids: torch.Tensor) -> dict[int, torch.Tensor]:
    """Tokens of each window, one boolean mask a window: (B, tokens, ...)."""
    return {int(i): x[:, ids == i] for i in ids.unique()}


@given(lengths, lengths, st.integers(1, 16), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_even_windows_cut_like_brute_force_and_restore(height, width, window_size, batch):
    check_cut((height, width), even_windows((height, width), window_size), batch)


@given(lengths, lengths, st.integers(1, 16), st.data())
@settings(max_examples=60, deadline=None)
def test_shifted_windows_cut_like_brute_force_and_restore(height, width, window_size, data):
    shift = data.draw(st.integers(0, window_size - 1))
    check_cut((height, width), shifted_windows((height, width), window_size, shift), 2)


def check_cut(grid, windows, batch):
    x = torch.arange(batch * grid[0] * grid[1] * 2).view(batch, *grid, 2)
    batches = cut(x, windows)
    assert all(h <= windows.largest[0] and w <= windows.largest[1] for h, w in (b.shape[1:3] for b in batches))
    ours = sorted(tuple(window.flatten().tolist()) for b in batches for window in b)
    theirs = sorted(
        tuple(image.flatten().tolist())
        for tokens in brute_force(x, window_ids(grid, windows)).values()
        for image in tokens
    )
    assert ours == theirs
    assert torch.equal(restore(batches, windows), x)


@given(lengths, st.integers(1, 16))
def test_even_windows_differ_by_one_token_at_most(length, window_size):
    rows, _ = even_windows((length, 1), window_size)
    sizes = [span.size for span in rows for _ in range(span.count)]
    assert sum(sizes) == length
    assert max(sizes) <= window_size and max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-length // window_size)


def test_64_tokens_in_windows_of_14():
    assert even_windows((64, 14), 14) == ([Span(0, 13, 4), Span(52, 12, 1)], [Span(0, 14, 1)])


@pytest.mark.parametrize('length, window_size', [(14, 7), (21, 7), (8, 2), (24, 12)])
def test_shifted_windows_are_the_regions_of_the_cyclic_shift_and_mask(length, window_size):
    shift = window_size // 2
    rolled = torch.arange(length).roll(-shift)
    window = torch.arange(length) // window_size
    region = (torch.arange(length) >= length - window_size).long() + (torch.arange(length) >= length - shift).long()
    classic = {frozenset(rolled[(window == i) & (region == j)].tolist()) for i in window.unique() for j in range(3)}
    spans = shifted_windows((length, 1), window_size, shift).rows
    ours = {frozenset(range(s.start + i * s.size, s.start + (i + 1) * s.size)) for s in spans for i in range(s.count)}
    assert ours == classic - {frozenset()}


@pytest.mark.parametrize('length', [1, 6, 7])
def test_an_axis_that_fits_into_one_window_is_not_shifted(length):
    assert shifted_windows((length, 20), 7, 3).rows == [Span(0, length, 1)]


def test_every_window_of_a_divided_axis_is_whole():
    assert shifted_windows((21, 22), 7) == ([Span(0, 7, 3)], [Span(0, 7, 3), Span(21, 1, 1)])


def test_cutting_learns():
    windows = even_windows((5, 7), 3)
    x = torch.randn(2, 5, 7, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: restore([b * 2 for b in cut(x, windows)], windows), x)


@pytest.mark.parametrize(
    'call, named',
    [
        (lambda: even_windows((4, 4), 0), 'window_size .* 0'),
        (lambda: shifted_windows((4, 4), -1), 'window_size .* -1'),
        (lambda: shifted_windows((4, 4), 2, 2), 'shift .* 2'),
        (lambda: shifted_windows((4, 4), 2, -1), 'shift .* -1'),
    ],
)
def test_wrong_arguments_are_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()
