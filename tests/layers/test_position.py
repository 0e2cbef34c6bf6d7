from collections.abc import Callable

import pytest
import torch

from mmrope.layers import RelativePositionBias, resize_bias_table, resize_pos_embed


def cubic(t: float) -> float:
    """Keys' kernel with a = -0.75, torch's bicubic."""
    a, t = -0.75, abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def resize_axis(x: torch.Tensor, size: int) -> torch.Tensor:
    """Bicubic along the first axis without antialias, by its definition; borders repeat."""
    old = len(x)
    rows = []
    for i in range(size):
        centre = (i + 0.5) * old / size - 0.5
        low = int(centre // 1)
        rows.append(sum(cubic(centre - j) * x[min(max(j, 0), old - 1)] for j in range(low - 1, low + 3)))
    return torch.stack(rows)


def test_resize_is_bicubic_without_antialias() -> None:
    pos_embed = torch.randn(1, 6 * 4, 3)
    for grid in [(9, 5), (3, 8), (1, 1), (12, 2)]:
        ours = resize_pos_embed(pos_embed, (6, 4), grid)
        rows = resize_axis(pos_embed.double().unflatten(1, (6, 4))[0], grid[0])
        theirs = resize_axis(rows.transpose(0, 1), grid[1]).transpose(0, 1)
        torch.testing.assert_close(ours, theirs.flatten(0, 1)[None].float(), rtol=0, atol=1e-5)


def test_same_grid_is_left_alone() -> None:
    pos_embed = torch.randn(1, 24, 3)
    assert resize_pos_embed(pos_embed, (6, 4), (6, 4)) is pos_embed


def test_half_precision_is_resized_in_float32() -> None:
    pos_embed = torch.randn(1, 24, 3)
    ours = resize_pos_embed(pos_embed.bfloat16(), (6, 4), (5, 9))
    theirs = resize_pos_embed(pos_embed.bfloat16().float(), (6, 4), (5, 9)).bfloat16()
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize('window', [(4, 4), (3, 4), (4, 1), (1, 1)])
def test_bias_is_the_entry_of_the_offset(window: tuple[int, int]) -> None:
    rpb = RelativePositionBias(4, 2)
    table = rpb.relative_position_bias_table.unflatten(0, (7, 7))
    bias = rpb(window, torch.float32)
    tokens = [(h, w) for h in range(window[0]) for w in range(window[1])]
    assert bias.shape == (2, len(tokens), len(tokens))
    for i, query in enumerate(tokens):
        for j, key in enumerate(tokens):
            assert torch.equal(bias[:, i, j], table[query[0] - key[0] + 3, query[1] - key[1] + 3])


def test_a_window_larger_than_the_table_is_named() -> None:
    with pytest.raises(ValueError, match=r'window .*\b4\b.*\(2, 5\)'):
        RelativePositionBias(4, 2)((2, 5), torch.float32)


def test_bias_table_is_resized_when_loaded(close: Callable[..., None]) -> None:
    small, large = RelativePositionBias(3, 2), RelativePositionBias(5, 2)
    state = small.state_dict()
    large.load_state_dict(state)
    table = state['relative_position_bias_table']
    assert table.shape == (25, 2)  # the caller's stays
    rows = resize_axis(table.double().unflatten(0, (5, 5)), 9)
    theirs = resize_axis(rows.transpose(0, 1), 9).transpose(0, 1).flatten(0, 1)
    close(large.relative_position_bias_table.detach(), theirs.float())


@pytest.mark.parametrize('rows', [24, 16])
def test_table_of_wrong_shape_is_named(rows: int) -> None:
    with pytest.raises(ValueError, match=rf'table .*\({rows}, 2\)'):
        resize_bias_table(torch.zeros(rows, 2), 3)
