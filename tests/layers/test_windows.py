from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrope.layers.windows import Span, Windows, even_windows, one_window, reorder, shifted_windows, window_order

lengths = st.integers(1, 40)


def window_ids(grid: tuple[int, int], windows: Windows) -> torch.Tensor:
    """Number of the window each token lies in, by the definition of a span: (H, W)."""
    axes = []
    for length, spans in zip(grid, (windows.rows, windows.cols)):
        ids = []
        for span in spans:
            assert span.start == len(ids)
            for number in range(span.number):
                ids += [(span.start, number)] * span.size
        assert len(ids) == length
        order = {key: i for i, key in enumerate(dict.fromkeys(ids))}
        axes.append(torch.tensor([order[key] for key in ids]))
    return axes[0][:, None] * 1000 + axes[1][None]


@given(lengths, lengths, st.integers(1, 16))
@settings(max_examples=60, deadline=None)
def test_even_windows_order_like_brute_force(height, width, window_size) -> None:
    check_order((height, width), even_windows((height, width), window_size))


@given(lengths, lengths, st.integers(1, 16), st.data())
@settings(max_examples=60, deadline=None)
def test_shifted_windows_order_like_brute_force(height, width, window_size, data) -> None:
    shift = data.draw(st.integers(0, window_size - 1))
    check_order((height, width), shifted_windows((height, width), window_size, shift))


def check_order(grid: tuple[int, int], windows: Windows) -> None:
    """Each run of the order holds the tokens of one window, by a boolean mask, row by row."""
    assert windows.grid == grid
    tokens, ids = torch.arange(grid[0] * grid[1]).view(grid), window_ids(grid, windows)
    theirs = {tuple(tokens[ids == i].tolist()) for i in ids.unique()}
    order = iter(window_order(windows).tolist())
    ours = []
    for count, height, width in windows.groups:
        assert height <= windows.largest[0] and width <= windows.largest[1]
        ours += [tuple(next(order) for _ in range(height * width)) for _ in range(count)]
    assert next(order, None) is None
    assert len(ours) == len(theirs) and set(ours) == theirs


@given(lengths, st.integers(1, 16))
def test_even_windows_differ_by_one_token_at_most(length, window_size) -> None:
    rows = even_windows((length, 1), window_size).rows
    sizes = [span.size for span in rows for _ in range(span.number)]
    assert sum(sizes) == length
    assert max(sizes) <= window_size and max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-length // window_size)


def test_64_tokens_in_windows_of_14() -> None:
    assert even_windows((64, 14), 14) == Windows((Span(0, 13, 4), Span(52, 12, 1)), (Span(0, 14, 1),))


@pytest.mark.parametrize('length, window_size', [(14, 7), (21, 7), (8, 2), (24, 12)])
def test_shifted_windows_are_the_regions_of_the_cyclic_shift_and_mask(length: int, window_size: int) -> None:
    shift = window_size // 2
    rolled = torch.arange(length).roll(-shift)
    window = torch.arange(length) // window_size
    region = (torch.arange(length) >= length - window_size).long() + (torch.arange(length) >= length - shift).long()
    classic = {frozenset(rolled[(window == i) & (region == j)].tolist()) for i in window.unique() for j in range(3)}
    spans = shifted_windows((length, 1), window_size, shift).rows
    ours = {frozenset(range(s.start + i * s.size, s.start + (i + 1) * s.size)) for s in spans for i in range(s.number)}
    assert ours == classic - {frozenset()}


@pytest.mark.parametrize('length', [1, 6, 7])
def test_an_axis_that_fits_into_one_window_is_not_shifted(length: int) -> None:
    assert shifted_windows((length, 20), 7, 3).rows == (Span(0, length, 1),)


def test_every_window_of_a_divided_axis_is_whole() -> None:
    assert shifted_windows((21, 22), 7) == Windows((Span(0, 7, 3),), (Span(0, 7, 3), Span(21, 1, 1)))


def test_one_window_keeps_tokens_row_by_row() -> None:
    assert one_window((3, 5)).grid == (3, 5)
    assert window_order(one_window((3, 5))).tolist() == list(range(15))


CUTS = [one_window, lambda grid: even_windows(grid, 3), lambda grid: shifted_windows(grid, 3, 1)]


@pytest.mark.parametrize('old', CUTS)
@pytest.mark.parametrize('new', CUTS)
def test_reordering_moves_every_token_to_its_place(old, new) -> None:
    old, new = old((5, 7)), new((5, 7))
    x = torch.randn(2, 35, 3, dtype=torch.double, requires_grad=True)
    there = reorder(x[:, window_order(old)], old, new)
    assert torch.equal(there, x[:, window_order(new)])
    assert torch.autograd.gradcheck(lambda x: reorder(x, old, new), x)
    assert torch.autograd.gradgradcheck(lambda x: reorder(x, old, new).square(), x)


def test_reordering_to_the_same_cut_copies_nothing() -> None:
    x = torch.randn(1, 35, 3)
    assert reorder(x, even_windows((5, 7), 3), even_windows((5, 7), 3)) is x


@pytest.mark.parametrize(
    'call, named',
    [
        (lambda: even_windows((4, 4), 0), 'window_size .* 0'),
        (lambda: shifted_windows((4, 4), -1), 'window_size .* -1'),
        (lambda: shifted_windows((4, 4), 2, 2), 'shift .* 2'),
        (lambda: shifted_windows((4, 4), 2, -1), 'shift .* -1'),
    ],
)
def test_wrong_arguments_are_named(call: Callable, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        call()
