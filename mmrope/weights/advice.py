"""Advice on how to change a config so that given weights fit.

Weights show most arguments of their model. They do not show the grid of ``pos_embed``, sometimes the number of heads,
and the base of frequencies that are not stored; for these, assumptions are made and reported.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..layers import Positions, axial_freqs
from ..layers.windows import Grid
from ..models.backbone import Backbone
from .family_layouts import turns_axes_apart
from .layouts import FAMILIES, NO_ROPE, Converted, depth_of, published_heads
from .report import LoadReport, Shape, WeightsError

FREQS = re.compile(r'.*\.rope\.freqs')
PER_HEAD = re.compile(r'\.rope\.freqs$|relative_position_bias_table$')
# The authors' code computes the zeros of axial frequencies as cos(pi / 2), which is -4e-8 in float32.
CONSTANT_TOLERANCE = 1e-5
# For a pattern of parameter names: what to set if only the weights have one, and if only the model has.
OPTIONS = {
    r'^pos_embed$': ('ape=True', 'ape=False'),
    r'relative_position_bias_table$': (
        'rpb=True',
        "rpb=False (or allow_missing=['relative_position_bias_table'], to learn it anew)",
    ),
    r'\.gamma_[12]$': ('layer_scale_init_value=1e-4', 'layer_scale_init_value=None'),
    r'^cls_token$': ('', 'with_cls_token=False'),
    r'^norm\.': ('', 'final_norm=False'),
    r'^reg_token$': ('', 'num_registers=0'),
    r'^norm_pre\.': ('pre_norm=True', 'pre_norm=False'),
    r'\.attn\.norm\.': ('attn_norm=True', 'attn_norm=False'),
    r'\.mlp\.norm\.': ('mlp_norm=True', 'mlp_norm=False'),
    r'\.q_norm\.': ('qk_norm=True', 'qk_norm=False'),
}
ATTN_NORM = r'\.attn\.norm\.'


@dataclass(frozen=True)
class Traits:
    """Arguments of a backbone that its weights show.

    Attributes:
        family: the class, ``'RoPEViT'``, ``'RoPESwin'`` or another.
        embed_dims: channels of a token (of the first stage).
        depths: blocks per stage; one number for a ViT.
        patch_size: side of a patch, in pixels.
        in_channels: channels of the image.
        ropes: values of ``rope`` that the weights may be for.
        options: patterns of ``OPTIONS`` that occur in their names.
        rope_theta: base of stored axial frequencies, else ``None``.
        hidden: hidden channels of the MLPs (of the first stage).
        mlp: ``'gelu'`` or ``'swiglu'``.
    """

    family: str
    embed_dims: int
    depths: tuple[int, ...]
    patch_size: int
    in_channels: int
    ropes: tuple[str | None, ...]
    options: frozenset[str]
    rope_theta: float | None = None
    hidden: int = 0
    mlp: str = 'gelu'

    @property
    def arch(self) -> str | dict[str, object]:
        """Name of the size, or a dict as for ``arch``, without ``num_heads`` (weights do not show it)."""
        for name, arch in FAMILIES[self.family].ARCHS.items():
            same = (arch['embed_dims'], arch.get('depths') or (arch['depth'],)) == (self.embed_dims, self.depths)
            if same and (self.family in ('RoPEViT', 'RoPESwin') or self._is_size(name)):
                return name
        depth = {'depths': self.depths} if self.family == 'RoPESwin' else {'depth': self.depths[0]}
        return {'embed_dims': self.embed_dims, **depth}

    def _is_size(self, name: str) -> bool:
        """Compare what tells the sizes of a family apart that have the same width and depth."""
        size = FAMILIES[self.family].merged(name)
        hidden = int(self.embed_dims * size.get('mlp_ratio', 4) + 1e-6)
        ours = self.hidden, self.mlp, ATTN_NORM in self.options
        return ours == (hidden, size.get('mlp', 'gelu'), size.get('attn_norm', False))


def traits_of(family: str, state: Mapping[str, Tensor]) -> Traits:
    """Read the traits from weights in mmrope's layout, which must include the patch embedding."""
    patch = state['patch_embed.proj.weight']
    depths: tuple[int, ...]
    if family == 'RoPESwin':
        depths = tuple(depth_of(state, f'layers.{i}.blocks') for i in range(depth_of(state, 'layers')))
    else:
        depths = (depth_of(state, 'blocks'),)
    options = frozenset(pattern for pattern in OPTIONS if any(re.search(pattern, key) for key in state))
    ropes, theta = _rope_of(state)
    first, last = (next((shape for key, shape in shapes_of(state, f'mlp.fc{i}.weight')), (0, 0)) for i in (1, 2))
    mlp = 'swiglu' if first[0] == 2 * last[-1] > 0 else 'gelu'
    sizes = patch.shape[2], patch.shape[1]
    return Traits(family, patch.shape[0], depths, *sizes, ropes, options, theta, last[-1], mlp)


def shapes_of(state: Mapping[str, Tensor], end: str) -> Iterator[tuple[str, Shape]]:
    """Yield the shapes of weights whose names end so, with the names."""
    yield from ((key, tuple(value.shape)) for key, value in state.items() if key.endswith(end))


def _rope_of(state: Mapping[str, Tensor]) -> tuple[tuple[str | None, ...], float | None]:
    """Return the values of ``rope`` that the weights may be for, and the base of stored axial frequencies."""
    freqs = next((state[key] for key in state if FREQS.fullmatch(key)), None)
    if freqs is None:
        has_positions = any(key == 'pos_embed' or key.endswith('relative_position_bias_table') for key in state)
        return ('axial', None) if has_positions else ('axial',), None
    theta = axial_theta(freqs)
    return ('axial',) if theta is not None or turns_axes_apart(freqs) else ('mixed',), theta


def traits_of_model(model: Backbone) -> Traits:
    """Read the traits from a backbone."""
    state = {**model.state_dict(), **dict(model.named_buffers())}
    traits = traits_of(family_of_model(model), state)
    return traits if any(map(FREQS.fullmatch, state)) else replace(traits, ropes=(None,))


def family_of_model(model: Backbone) -> str:
    """Return the family of a backbone, which a subclass of a user's shares."""
    return next(cls.__name__ for cls in type(model).__mro__ if cls.__name__ in FAMILIES)


def axial_theta(freqs: Tensor) -> float | None:
    """Return the base of axial frequencies ``(2, heads, head_dim // 2)``; ``None`` if they are not axial."""
    head_dim = 2 * freqs.shape[-1]
    if freqs.ndim != 3 or head_dim % 8 or freqs.is_meta:
        return None
    # magnitudes are theta ** (-4 j / head_dim), so the middle one is theta ** -0.5
    middle = float(freqs[0, 0, head_dim // 8])
    theta = middle**-2 if middle > 0 else 0.0
    return theta if theta > 0 and is_axial(freqs, axial_freqs(head_dim, theta)) else None


def is_axial(freqs: Tensor, constants: Tensor) -> bool:
    """Return whether ``freqs`` of all heads equal the constants of RoPE-Axial ``(2, 1, head_dim // 2)``."""
    constants = constants.to('cpu', torch.float32).expand(-1, freqs.shape[1], -1)
    return freqs.shape == constants.shape and torch.allclose(
        freqs.detach().to('cpu', torch.float32), constants, rtol=CONSTANT_TOLERANCE, atol=CONSTANT_TOLERANCE
    )


def advice(weights: Traits, model: Traits, report: LoadReport) -> str:
    """Say what to change in a config so that the weights of ``report`` fit; empty if no change is known."""
    if weights.family != model.family and not _looks_like_sam3(weights, model, report):
        arch = f', arch={weights.arch!r}' if isinstance(weights.arch, str) else ''
        return f"these are weights of a {weights.family}: set type='mmrope.{weights.family}'{arch}"
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
    if weights.mlp != model.mlp and weights.arch == model.arch:
        changes.append(f'mlp={weights.mlp!r}')
    registers = report.misfits.get('reg_token')
    if registers is not None and registers[0][1] != registers[1][1]:
        changes.append(f'num_registers={registers[0][1]}')
    for pattern, (only_weights, only_model) in OPTIONS.items():
        if pattern in weights.options - model.options and only_weights:
            changes.append(only_weights)
        if pattern in model.options - weights.options and any(re.search(pattern, key) for key in report.missing):
            changes.append(only_model)
    return f'these are weights for another model: set {", ".join(changes)}' if changes else ''


def _looks_like_sam3(weights: Traits, model: Traits, report: LoadReport) -> bool:
    """Say whether weights that mmrope wrote, which look like PE's, may be those of SAM 3 in a model of SAM 3."""
    return (weights.family, model.family) == ('PEViT', 'SAM3ViT') and not report.renamed


def _heads(report: LoadReport) -> list[str]:
    """Say which ``num_heads`` a ViT's frequencies show, if the model has another."""
    shapes = [shapes for key, shapes in report.misfits.items() if key == 'blocks.0.attn.rope.freqs']
    return [f'num_heads={theirs[1]} in arch' for theirs, ours in shapes if theirs[1] != ours[1]]


def _is_square(number: int) -> bool:
    """Return whether a number is a perfect square."""
    return math.isqrt(number) ** 2 == number


def check_grid(pos_grid: Sequence[int], state: Mapping[str, Any]) -> Grid:
    """Return ``pos_grid`` if it has as many places as the position embedding.

    Raises:
        WeightsError: if not, or if there is no position embedding.
    """
    places = state['pos_embed'].shape[1] if 'pos_embed' in state else 0
    if len(pos_grid) != 2 or math.prod(pos_grid) != places:
        raise WeightsError(
            f'pos_grid must be the (H, W) of the {places} places of pos_embed, but got {tuple(pos_grid)}'
        )
    height, width = pos_grid
    return height, width


def assumed_grid(places: int, model_grid: tuple[int, int], report: LoadReport) -> tuple[int, int] | None:
    """Return the model's grid, or a square one, for a position embedding of ``places``; ``None`` if neither fits.

    The assumption is reported, unless both are the same grid.
    """
    if places == math.prod(model_grid):
        grid = model_grid
    elif _is_square(places):
        grid = (math.isqrt(places),) * 2
    else:
        return None
    if grid != model_grid or grid[0] != grid[1]:
        report.assumed.append(f'pos_embed was learned on a grid of {grid[0]} x {grid[1]} (set pos_grid if not)')
    return grid


def grid_advice(report: LoadReport) -> str:
    """Say how to set the grid of a position embedding that is neither the model's nor square; empty if it is."""
    theirs = report.misfits.get('pos_embed', ((),))[0]
    places = theirs[1] if len(theirs) == 3 else 0
    if _is_square(places) or _is_square(places - 1):  # the latter with a place for a cls token
        return ''
    return (
        f'the {places} places of pos_embed are not a square grid: set img_size=(H, W) of the backbone to the image '
        'size in pixels that they were learned at, or pos_grid=(H, W) of init_cfg to their grid'
    )


def compare_positions(model: Backbone, converted: Converted, report: LoadReport) -> None:
    """Compare the rules of positions, which no name of a weight shows."""
    positions: Positions | None = getattr(model, 'positions', None)
    if converted.rules == (NO_ROPE,):
        if traits_of_model(model).ropes != (None,):
            report.conflicts.append('the weights were trained without RoPE: set rope=None')
        return
    if positions is not None and converted.rules and positions.rule not in converted.rules:
        report.conflicts.append(f'the rule of positions is {converted.rules[0]!r}, not {positions.rule!r}')


def compare_reference(model: Backbone, grid: Grid, report: LoadReport) -> None:
    """Compare the grid that positions scale to, if that is the model's own, with that of a position embedding."""
    positions: Positions = model.positions
    if positions.ref == model.pos_grid != grid:
        (height, width), size = grid, tuple(side * patch for side, patch in zip(grid, model.patch_embed.patch_size))
        report.conflicts.append(
            f'positions scale to a grid of {height} x {width}, not {model.pos_grid[0]} x {model.pos_grid[1]} '
            f'(set img_size={size})'
        )


def compare_heads(model: Backbone, converted: Converted, report: LoadReport) -> None:
    """Compare the numbers of heads if no frequencies or bias table show it.

    Published models of the same width have the same heads, and mmrope's checkpoints note the number.
    """
    if any(map(PER_HEAD.search, converted.state)):
        return
    ours = model.notes()['num_heads']
    theirs = converted.num_heads or published_heads(converted.family, model.embed_dims)
    if theirs is None or len(theirs) != len(ours):
        report.assumed.append(f'num_heads={_short(ours)}, as the model has')
    elif tuple(theirs) != ours:
        report.conflicts.append(f'num_heads is {_short(theirs)}, not {_short(ours)}')


def _short(heads: tuple[int, ...]) -> int | tuple[int, ...]:
    return heads[0] if len(heads) == 1 else tuple(heads)


def compare_theta(model: Backbone, converted: Converted, report: LoadReport) -> None:
    """Report a model's axial base if it is not the published one and the weights do not show theirs."""
    traits = traits_of_model(model)
    theta = traits.rope_theta
    if theta is None or any(map(FREQS.fullmatch, converted.state)):
        return
    published = FAMILIES[traits.family].THETAS['axial']
    if not math.isclose(theta, published, rel_tol=1e-3):
        report.assumed.append(f'rope_theta={theta:.4g}, as the model has; published weights have {published:.4g}')
