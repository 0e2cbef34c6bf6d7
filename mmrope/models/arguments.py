"""Checks of the arguments that the backbones share; each raises a ValueError that names the argument and its value."""

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from torch import Tensor

from ..layers import Positions


def arch_settings(
    arch: str | Mapping, archs: Mapping[str, dict], *required: str, of_stages: Sequence[str] = ()
) -> dict:
    """Resolve ``arch``: a name in ``archs``, or a dict with the keys ``required`` and optionally ``mlp_ratio`` (4).

    Keys in ``of_stages`` hold one number for each stage.
    """
    if not isinstance(arch, (str, Mapping)):
        raise ValueError(f'arch must be one of {", ".join(archs)} or a dict, but got {arch!r}')
    if isinstance(arch, str):
        if arch not in archs:
            raise ValueError(f'arch must be one of {", ".join(archs)} or a dict, but got {arch!r}')
        arch = archs[arch]
    if not set(required) <= set(arch) <= {*required, 'mlp_ratio'}:
        raise ValueError(
            f'arch must have the keys {", ".join(required)} and optionally mlp_ratio, but got {dict(arch)}'
        )
    settings = {'mlp_ratio': 4, **arch}
    for name, value in settings.items():
        kind: Any
        kind, wanted = (Real, 'positive number') if name == 'mlp_ratio' else (Integral, 'positive int')
        wanted = f'one {wanted} per stage' if name in of_stages else f'a {wanted}'
        numbers = _several(value)
        if (numbers is value) != (name in of_stages) or not all(isinstance(n, kind) and n > 0 for n in numbers):
            raise ValueError(f'{name} of arch must be {wanted}, but got {value!r}')
    return settings


def theta_of(rope: str | None, rope_theta: float | None, defaults: Mapping[str, float]) -> float | None:
    """Return the base of the frequencies: ``rope_theta``, or the default of ``rope``; ``None`` without rotation."""
    if rope is not None and rope not in defaults:
        raise ValueError(f'rope must be {", ".join(map(repr, defaults))} or None, but got {rope!r}')
    if rope is None and rope_theta is not None:
        raise ValueError(f'rope_theta must be None when rope is None, but got {rope_theta}')
    if rope_theta is not None and not (isinstance(rope_theta, Real) and 0 < rope_theta < math.inf):
        raise ValueError(f'rope_theta must be a positive finite number, but got {rope_theta!r}')
    return rope_theta if rope is None or rope_theta is not None else defaults[rope]


def positions_of(positions: Mapping[str, Any] | None) -> Positions:
    """Return the rule of positions that a dict of arguments asks for."""
    known = ('rule', 'ref', 'offset', 'frame')
    if not isinstance(positions, Mapping | None) or not set(positions or ()) <= set(known):
        raise ValueError(f'positions must be None or a dict with keys among {", ".join(known)}, but got {positions!r}')
    return Positions(**positions or {})


def indexes_in_order(name: str, indexes: Sequence[int], length: int, at_least_one: bool = False) -> tuple[int, ...]:
    """Return ``indexes`` sorted, and counted from the start."""
    if not isinstance(indexes, Sequence) or not all(isinstance(index, Integral) for index in indexes):
        raise ValueError(f'{name} must be a sequence of ints, but got {indexes!r}')
    if at_least_one and not len(indexes):
        raise ValueError(f'{name} must name at least one index, but got {indexes}')
    if any(not -length <= index < length for index in indexes):
        raise ValueError(f'{name} must be between {-length} and {length - 1}, but got {tuple(indexes)}')
    normal = tuple(sorted(index % length for index in indexes))
    if len(set(normal)) < len(normal):
        raise ValueError(f'{name} must not repeat an index, but got {tuple(indexes)} for a length of {length}')
    return normal


def grid_of(img_size: int | Sequence[int], patch_size: int) -> tuple[int, int]:
    """Return the token grid ``(H, W)`` of images of ``img_size``, one number or ``(H, W)``."""
    check_at_least(1, patch_size=patch_size)
    sides = img_size if isinstance(img_size, Sequence) else (img_size, img_size)
    if len(sides) != 2 or not all(isinstance(side, Integral) and side >= 1 for side in sides):
        raise ValueError(f'img_size must be an int of at least 1 or (H, W), but got {img_size!r}')
    return -(-sides[0] // patch_size), -(-sides[1] // patch_size)


def check_at_least(least: int, **arguments: int) -> None:
    """Check that each argument is an int of at least ``least``."""
    for name, value in arguments.items():
        if not isinstance(value, Integral) or value < least:
            raise ValueError(f'{name} must be an int of at least {least}, but got {value!r}')


def _several(value: Any) -> Sequence:
    return value if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def check_choice(name: str, value: str, *allowed: str) -> None:
    """Check that an argument is one of the ``allowed`` values."""
    if value not in allowed:
        raise ValueError(f'{name} must be {" or ".join(map(repr, allowed))}, but got {value!r}')


def check_drop_path_rate(drop_path_rate: float) -> None:
    """Check that ``drop_path_rate`` is a probability below 1."""
    if not isinstance(drop_path_rate, Real) or not 0 <= drop_path_rate < 1:
        raise ValueError(f'drop_path_rate must be at least 0 and below 1, but got {drop_path_rate!r}')


def check_frozen_stages(frozen_stages: int, stages: int) -> None:
    """Check that the model has ``frozen_stages`` stages; -1 freezes nothing."""
    if not isinstance(frozen_stages, Integral) or not -1 <= frozen_stages <= stages:
        raise ValueError(f'frozen_stages must be an int between -1 and {stages}, but got {frozen_stages!r}')


def check_open_blocks(
    open_blocks: int, depth: int, final_norm: bool, out_indices: Sequence[int], global_blocks: Sequence[int]
) -> None:
    """Check that the last ``open_blocks`` of a ViT can be left to a head; 0 leaves none."""
    if not isinstance(open_blocks, Integral) or not 0 <= open_blocks <= depth:
        raise ValueError(f'open_blocks must be an int between 0 and {depth}, but got {open_blocks!r}')
    if not open_blocks:
        return
    if not final_norm:
        raise ValueError(f'open_blocks = {open_blocks} needs final_norm = True, but got final_norm = False')
    first = depth - open_blocks
    if out_indices and out_indices[-1] >= first:
        allowed = f'be below {first} or be empty' if first else 'be empty'
        raise ValueError(f'out_indices must {allowed} with open_blocks = {open_blocks}, but got {tuple(out_indices)}')
    if not set(range(first, depth)) <= set(global_blocks):
        raise ValueError(
            f'global_attn_indexes must hold {first} to {depth - 1} with open_blocks = {open_blocks}, '
            f'but got {tuple(global_blocks)}'
        )


def check_images(x: Tensor, in_channels: int) -> None:
    """Check that ``x`` is a batch of images, in floating point and not empty."""
    if x.ndim != 4 or x.shape[1] != in_channels:
        raise ValueError(f'x must be (B, {in_channels}, H, W) images, but got shape {tuple(x.shape)}')
    if not x.is_floating_point():
        raise ValueError(f'x must be images in floating point, normalised as in training, but got {x.dtype}')
    if 0 in x.shape[2:]:
        raise ValueError(f'x must be images of at least one pixel, but got shape {tuple(x.shape)}')
