import torch

from mmrope.layers import resize_pos_embed


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


def test_resize_is_bicubic_without_antialias():
    pos_embed = torch.randn(1, 6 * 4, 3)
    for grid in [(9, 5), (3, 8), (1, 1), (12, 2)]:
        ours = resize_pos_embed(pos_embed, (6, 4), grid)
        rows = resize_axis(pos_embed.double().unflatten(1, (6, 4))[0], grid[0])
        theirs = resize_axis(rows.transpose(0, 1), grid[1]).transpose(0, 1)
        torch.testing.assert_close(ours, theirs.flatten(0, 1)[None].float(), rtol=0, atol=1e-5)


def test_same_grid_is_left_alone():
    pos_embed = torch.randn(1, 24, 3)
    assert resize_pos_embed(pos_embed, (6, 4), (6, 4)) is pos_embed


def test_half_precision_is_resized_in_float32():
    pos_embed = torch.randn(1, 24, 3)
    ours = resize_pos_embed(pos_embed.bfloat16(), (6, 4), (5, 9))
    theirs = resize_pos_embed(pos_embed.bfloat16().float(), (6, 4), (5, 9)).bfloat16()
    assert torch.equal(ours, theirs)
