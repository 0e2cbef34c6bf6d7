"""What weights do not show, and what is taken for it: the grid of `pos_embed`, heads, the base of frequencies."""

import math
import re
from collections.abc import Mapping
from typing import Any

from ..models import RoPESwin, RoPEViT, swin, vit
from .advice import FREQS, traits_of_model
from .layouts import Converted, published_heads
from .report import LoadReport, WeightsError

PER_HEAD = re.compile(r'\.rope\.freqs$|relative_position_bias_table$')


def is_square(number: int) -> bool:
    """Say whether a number is the square of a whole one."""
    return math.isqrt(number) ** 2 == number


def check_grid(pos_grid: tuple[int, int], state: Mapping[str, Any]) -> None:
    """Check that a grid has as many places as the position embedding.

    Raises:
        WeightsError: If it has not, or there is no position embedding.
    """
    places = state['pos_embed'].shape[1] if 'pos_embed' in state else 0
    if len(pos_grid) != 2 or math.prod(pos_grid) != places:
        raise WeightsError(f'pos_grid must be the (H, W) of the {places} places of pos_embed, but got {pos_grid}')


def assumed_grid(places: int, model_grid: tuple[int, int], report: LoadReport) -> tuple[int, int] | None:
    """Take the model's grid for that of a position embedding, or a square one; ``None`` if neither can be.

    The report says so, except where both are the same.
    """
    if places == math.prod(model_grid):
        grid = model_grid
    elif is_square(places):
        grid = (math.isqrt(places),) * 2
    else:
        return None
    if grid != model_grid or grid[0] != grid[1]:
        report.assumed.append(f'pos_embed was learned on a grid of {grid[0]} x {grid[1]} (pos_grid says another)')
    return grid


def grid_advice(report: LoadReport) -> str:
    """Say how to name the grid of a position embedding that is neither the model's nor square; empty if it is."""
    theirs = report.misfits.get('pos_embed', ((),))[0]
    places = theirs[1] if len(theirs) == 3 else 0
    if is_square(places) or is_square(places - 1):  # the latter has a place for a cls token
        return ''
    return (
        f'the {places} places of pos_embed are no square grid: set img_size=(H, W) of the backbone to the size in '
        'pixels that they were learned at, or pos_grid=(H, W) of init_cfg to their grid'
    )


def compare_heads(model: RoPEViT | RoPESwin, converted: Converted, report: LoadReport) -> None:
    """Compare the heads where no frequencies and no bias table show those of the weights.

    The published models of a width have the same heads, and mmrope notes those of others in its checkpoints.
    """
    if any(map(PER_HEAD.search, converted.state)):
        return
    ours = model.notes()['num_heads']
    theirs = converted.num_heads or published_heads(converted.family, model.embed_dims)
    if theirs is None or len(theirs) != len(ours):
        report.assumed.append(f'num_heads={_short(ours)}, as the model has')
    elif tuple(theirs) != ours:
        report.conflicts.append(f'num_heads is {_short(theirs)} and not {_short(ours)}')


def _short(heads: tuple[int, ...]) -> int | tuple[int, ...]:
    return heads[0] if len(heads) == 1 else tuple(heads)


def compare_theta(model: RoPEViT | RoPESwin, converted: Converted, report: LoadReport) -> None:
    """Say that a model's axial frequencies are not the published ones, where the weights do not show theirs."""
    theta = traits_of_model(model).rope_theta
    if theta is None or any(map(FREQS.fullmatch, converted.state)):
        return
    published = (vit if isinstance(model, RoPEViT) else swin).THETAS['axial']
    if not math.isclose(theta, published, rel_tol=1e-3):
        report.assumed.append(f'rope_theta={theta:.4g}, as the model has; published weights have {published:.4g}')
