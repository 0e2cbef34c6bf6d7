"""What kind of model some weights are for, and what to change in a config that asks for another."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..layers import axial_freqs
from ..models import RoPESwin, RoPEViT, swin, vit
from .layouts import depth_of
from .report import LoadReport

FREQS = re.compile(r'.*\.rope\.freqs')
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
        embed_dims: Channels of a token (of the first stage).
        depths: Blocks of each stage; one number for a ViT.
        patch_size: Side of a patch, in pixels.
        in_channels: Channels of the image.
        ropes: Values of ``rope`` that such weights are for, as far as they show it.
        options: Those of ``OPTIONS`` that they have.
        rope_theta: Of stored axial frequencies, else ``None``.
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
        """The size: its name, or a dict as ``arch`` takes it, without ``num_heads`` (weights do not show them)."""
        archs = vit.ARCHS if self.family == 'RoPEViT' else swin.ARCHS
        for name, arch in archs.items():
            if (arch['embed_dims'], arch.get('depths') or (arch['depth'],)) == (self.embed_dims, self.depths):
                return name
        depth = {'depth': self.depths[0]} if self.family == 'RoPEViT' else {'depths': self.depths}
        return {'embed_dims': self.embed_dims, **depth}


def traits_of(family: str, state: Mapping[str, Tensor]) -> Traits:
    """Read the traits off weights in mmrope's layout that have at least a patch embedding."""
    patch = state['patch_embed.proj.weight']
    if family == 'RoPEViT':
        depths = (depth_of(state, 'blocks'),)
    else:
        depths = tuple(depth_of(state, f'layers.{i}.blocks') for i in range(depth_of(state, 'layers')))
    options = frozenset(pattern for pattern in OPTIONS if any(re.search(pattern, key) for key in state))
    ropes, theta = _rope_of(state)
    return Traits(family, patch.shape[0], depths, patch.shape[2], patch.shape[1], ropes, options, theta)


def _rope_of(state: Mapping[str, Tensor]) -> tuple[tuple[str | None, ...], float | None]:
    """Values of ``rope`` that the weights can be for, and the base of stored axial frequencies."""
    freqs = next((state[key] for key in state if FREQS.fullmatch(key)), None)
    if freqs is None:
        has_positions = any(key == 'pos_embed' or key.endswith('relative_position_bias_table') for key in state)
        return ('axial', None) if has_positions else ('axial',), None
    theta = axial_theta(freqs)
    return ('mixed',) if theta is None else ('axial',), theta


def traits_of_model(model: RoPEViT | RoPESwin) -> Traits:
    """Read the traits off a backbone."""
    family = 'RoPEViT' if isinstance(model, RoPEViT) else 'RoPESwin'
    state = {**model.state_dict(), **dict(model.named_buffers())}
    traits = traits_of(family, state)
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
