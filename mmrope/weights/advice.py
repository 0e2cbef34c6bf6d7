"""The model that some weights are for: what they show of it, what is assumed, and what to change in a config.

Not shown are the grid of `pos_embed`, sometimes the number of heads, and the base of frequencies that are not stored.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..layers import axial_freqs
from ..layers.windows import Grid
from ..models.backbone import Backbone
from .layouts import FAMILIES, Converted, depth_of, family_of, published_heads
from .report import LoadReport, WeightsError

FREQS = re.compile(r'.*\.rope\.freqs')
PER_HEAD = re.compile(r'\.rope\.freqs$|relative_position_bias_table$')
# The authors' code makes the zeros of axial frequencies as cos(pi / 2), which is -4e-8 in float32.
CONSTANT_TOLERANCE = 1e-5
# By the name of a parameter: what to set if only the weights have such, and if only the model has.
OPTIONS = {
    r'^pos_embed$': ('ape=True', 'ape=False'),
    r'relative_position_bias_table$': (
        'rpb=True',
        "rpb=False (or allow_missing=['relative_position_bias_table'], to learn it anew)",
    ),
    r'\.gamma_[12]$': ('layer_scale_init_value=1e-4', 'layer_scale_init_value=None'),
    r'^cls_token$': ('', 'with_cls_token=False'),
    r'^norm\.': ('', 'final_norm=False'),
}


@dataclass(frozen=True)
class Traits:
    """Arguments of a backbone, as far as its weights show them.

    Attributes:
        family: ``'RoPEViT'`` or ``'RoPESwin'``.
        embed_dims: channels of a token (of the first stage).
        depths: blocks of each stage; one number for a ViT.
        patch_size: side of a patch, in pixels.
        in_channels: channels of the image.
        ropes: values of ``rope`` that such weights are for, as far as they show it.
        options: those of ``OPTIONS`` that they have.
        rope_theta: of stored axial frequencies, else ``None``.
    """

    family: str
    embed_dims: int
    depths: tuple[int, ...]
    patch_size: int
    in_channels: int
    ropes: tuple[str | None, ...]
    options: frozenset[str]
    rope_theta: float | None = None

    @property
    def arch(self) -> str | dict[str, object]:
        """Size: its name, or a dict as ``arch`` takes it, without ``num_heads`` (weights do not show them)."""
        for name, arch in FAMILIES[self.family].ARCHS.items():
            if (arch['embed_dims'], arch.get('depths') or (arch['depth'],)) == (self.embed_dims, self.depths):
                return name
        depth = {'depth': self.depths[0]} if self.family == 'RoPEViT' else {'depths': self.depths}
        return {'embed_dims': self.embed_dims, **depth}


def traits_of(family: str, state: Mapping[str, Tensor]) -> Traits:
    """Read the traits off weights in mmrope's layout that have at least a patch embedding."""
    patch = state['patch_embed.proj.weight']
    depths: tuple[int, ...]
    if family == 'RoPEViT':
        depths = (depth_of(state, 'blocks'),)
    else:
        depths = tuple(depth_of(state, f'layers.{i}.blocks') for i in range(depth_of(state, 'layers')))
    options = frozenset(pattern for pattern in OPTIONS if any(re.search(pattern, key) for key in state))
    ropes, theta = _rope_of(state)
    return Traits(family, patch.shape[0], depths, patch.shape[2], patch.shape[1], ropes, options, theta)


def _rope_of(state: Mapping[str, Tensor]) -> tuple[tuple[str | None, ...], float | None]:
    """Return the values of ``rope`` that the weights can be for, and the base of stored axial frequencies."""
    freqs = next((state[key] for key in state if FREQS.fullmatch(key)), None)
    if freqs is None:
        has_positions = any(key == 'pos_embed' or key.endswith('relative_position_bias_table') for key in state)
        return ('axial', None) if has_positions else ('axial',), None
    theta = axial_theta(freqs)
    return ('mixed',) if theta is None else ('axial',), theta


def traits_of_model(model: Backbone) -> Traits:
    """Read the traits off a backbone."""
    state = {**model.state_dict(), **dict(model.named_buffers())}
    traits = traits_of(family_of(state), state)
    return traits if any(map(FREQS.fullmatch, state)) else replace(traits, ropes=(None,))


def axial_theta(freqs: Tensor) -> float | None:
    """Return the base of axial frequencies ``(2, heads, head_dim // 2)``, ``None`` if these are not axial."""
    head_dim = 2 * freqs.shape[-1]
    if freqs.ndim != 3 or head_dim % 8 or freqs.is_meta:
        return None
    # magnitudes are theta ** (-4 j / head_dim): the one in the middle has a simple exponent
    middle = float(freqs[0, 0, head_dim // 8])
    theta = middle**-2 if middle > 0 else 0.0
    return theta if theta > 0 and is_axial(freqs, axial_freqs(head_dim, theta)) else None


def is_axial(freqs: Tensor, constants: Tensor) -> bool:
    """Say whether frequencies, a set a head, are the constants of RoPE-Axial ``(2, 1, head_dim // 2)``."""
    constants = constants.to('cpu', torch.float32).expand(-1, freqs.shape[1], -1)
    return freqs.shape == constants.shape and torch.allclose(
        freqs.detach().to('cpu', torch.float32), constants, rtol=CONSTANT_TOLERANCE, atol=CONSTANT_TOLERANCE
    )


def advice(weights: Traits, model: Traits, report: LoadReport) -> str:
    """Say what to change in a config so that the weights of ``report`` fit; empty if nothing is known to help."""
    if weights.family != model.family:
        return f"these are weights of a {weights.family}: set type='mmrope.{weights.family}'"
    changes = [
        f'{name}={getattr(weights, name)!r}'
        for name in ('arch', 'patch_size', 'in_channels')
        if getattr(weights, name) != getattr(model, name)
    ]
    if weights.arch == model.arch:
        changes += _heads(report)
    if not set(weights.ropes) & set(model.ropes):
        changes.append(' or '.join(f'rope={rope!r}' for rope in weights.ropes))
    elif weights.rope_theta is not None and any(map(FREQS.fullmatch, report.left_over)):
        changes.append(f'rope_theta={weights.rope_theta:.4g}')
    for pattern, (only_weights, only_model) in OPTIONS.items():
        if pattern in weights.options - model.options and only_weights:
            changes.append(only_weights)
        if pattern in model.options - weights.options and any(re.search(pattern, key) for key in report.missing):
            changes.append(only_model)
    return f'these are weights for another model: set {", ".join(changes)}' if changes else ''


def _heads(report: LoadReport) -> list[str]:
    """Read the heads of a ViT off frequencies that are as many as the model's and of another shape."""
    shapes = [shapes for key, shapes in report.misfits.items() if key == 'blocks.0.attn.rope.freqs']
    return [f'num_heads={theirs[1]} in arch' for theirs, ours in shapes if theirs[1] != ours[1]]


def _is_square(number: int) -> bool:
    """Say whether a number is the square of a whole one."""
    return math.isqrt(number) ** 2 == number


def check_grid(pos_grid: Sequence[int], state: Mapping[str, Any]) -> Grid:
    """Return a grid that has as many places as the position embedding.

    Raises:
        WeightsError: if it has not, or there is no position embedding.
    """
    places = state['pos_embed'].shape[1] if 'pos_embed' in state else 0
    if len(pos_grid) != 2 or math.prod(pos_grid) != places:
        raise WeightsError(
            f'pos_grid must be the (H, W) of the {places} places of pos_embed, but got {tuple(pos_grid)}'
        )
    height, width = pos_grid
    return height, width


def assumed_grid(places: int, model_grid: tuple[int, int], report: LoadReport) -> tuple[int, int] | None:
    """Take the model's grid for that of a position embedding, or a square one; ``None`` if neither can be.

    The report says so, except where both are the same.
    """
    if places == math.prod(model_grid):
        grid = model_grid
    elif _is_square(places):
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
    if _is_square(places) or _is_square(places - 1):  # the latter has a place for a cls token
        return ''
    return (
        f'the {places} places of pos_embed are no square grid: set img_size=(H, W) of the backbone to the size in '
        'pixels that they were learned at, or pos_grid=(H, W) of init_cfg to their grid'
    )


def compare_heads(model: Backbone, converted: Converted, report: LoadReport) -> None:
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


def compare_theta(model: Backbone, converted: Converted, report: LoadReport) -> None:
    """Say that a model's axial frequencies are not the published ones, where the weights do not show theirs."""
    traits = traits_of_model(model)
    theta = traits.rope_theta
    if theta is None or any(map(FREQS.fullmatch, converted.state)):
        return
    published = FAMILIES[traits.family].THETAS['axial']
    if not math.isclose(theta, published, rel_tol=1e-3):
        report.assumed.append(f'rope_theta={theta:.4g}, as the model has; published weights have {published:.4g}')
