"""Changes of a model's frequencies in training, and the functions that a set of frequencies can represent.

Frequencies are points of the plane, in radians per token step along x and y. Those of RoPE-Mixed start, for each head,
as the axial ones turned by a random angle: on circles of radius ``theta ** (-4 k / head_dim)``, one half at the angle
and the other half at a right angle to it. A checkpoint does not hold that angle. Without the initial checkpoint, the
learned frequencies are compared with the nearest possible initial set, which gives a lower bound of the change.

RoPE-ViT's paper shows with a Fourier transform that axial frequencies represent less than mixed ones. Its exact
procedure is not known here; :func:`reconstruct` is this project's choice.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..layers import Attention, axial_freqs, mixed_freqs
from ..models import RoPESwin, RoPEViT, swin, vit

INITIAL_SETS = 5  # random initial sets per block, whose errors are averaged


@dataclass
class HeadChange:
    """Differences of one head's frequencies from initial ones.

    Attributes:
        change: ``|learned - initial| / |initial|``, over all frequencies of the head.
        angle: direction of the initial set, in radians from -pi to pi.
        magnitudes: ``|learned| / |initial|`` of each frequency.
    """

    change: float
    angle: float
    magnitudes: list[float]


def freqs_of(backbone: RoPEViT | RoPESwin) -> dict[str, Tensor]:
    """Return the frequencies of each block with RoPE by its name, ``(2, heads or 1, head_dim // 2)`` in float64."""
    return {
        name.removesuffix('.attn'): layer.rope.freqs.detach().cpu().double()
        for name, layer in backbone.named_modules()
        if isinstance(layer, Attention) and layer.rope is not None
    }


def thetas_of(backbone: RoPEViT | RoPESwin) -> tuple[float, float]:
    """Return the bases of RoPE-Mixed and RoPE-Axial: the backbone's for its kind of RoPE, the paper's for the other."""
    thetas = dict((vit if isinstance(backbone, RoPEViT) else swin).THETAS)
    for rope in (layer.rope for layer in backbone.modules() if isinstance(layer, Attention)):
        if rope is not None:
            thetas['mixed' if isinstance(rope.freqs, nn.Parameter) else 'axial'] = rope.theta
    return thetas['mixed'], thetas['axial']


def changes(freqs: Tensor, theta: float, initial: Tensor | None = None) -> list[HeadChange]:
    """Compare the learned frequencies of a block with those it started from.

    Args:
        freqs: ``(2, heads, head_dim // 2)``.
        theta: base of the initial ones.
        initial: the initial ones; ``None`` for the nearest initial set of each head.

    Returns:
        The change of each head.
    """
    unturned = mixed_freqs(2 * freqs.shape[-1], torch.zeros(1), theta).double()
    learned, at_zero = (torch.complex(part[0], part[1]) for part in (freqs.double(), unturned))
    if initial is None:
        start = (learned * at_zero.conj()).sum(
            -1, keepdim=True
        ).sgn() * at_zero  # the turn with the least squared distance
    else:
        start = torch.complex(*initial.double())
    angles = (start * at_zero.conj()).sum(-1).angle()
    change = (learned - start).abs().square().sum(-1).sqrt() / start.abs().square().sum(-1).sqrt()
    return [HeadChange(*row) for row in zip(change.tolist(), angles.tolist(), (learned.abs() / start.abs()).tolist())]


def reconstruct(function: Tensor, freqs: Tensor) -> tuple[Tensor, int]:
    """Keep the part of a function on a grid that some frequencies can represent, by FFT and inverse FFT.

    A frequency keeps the nearest point of the discrete spectrum and that of its negative, since both signs describe the
    same rotation. The mean stays: a constant added to attention logits changes nothing. A frequency beyond half a turn
    per token step stands for its alias on the grid.

    Args:
        function: real values, ``(H, W)``.
        freqs: ``(2, ...)``, radians per token step along x and y.

    Returns:
        The reconstruction, ``(H, W)``, and how many points of the spectrum were kept.
    """
    height, width = function.shape
    cols, rows = (
        (part.flatten().double() * size / (2 * math.pi)).round().long() for part, size in zip(freqs, (width, height))
    )
    keep = torch.zeros(height, width, dtype=torch.bool)
    keep[0, 0] = True
    keep[rows % height, cols % width] = True
    keep[-rows % height, -cols % width] = True
    return torch.fft.ifft2(torch.fft.fft2(function.double()) * keep).real, int(keep.sum())


def error(function: Tensor, reconstruction: Tensor) -> float:
    """Return the share of a function's variance that a reconstruction misses: 0 if exact, 1 for a constant."""
    function = function.double()
    return float((function - reconstruction).square().sum() / (function - function.mean()).square().sum())


def target_functions(size: int) -> dict[str, Tensor]:
    """Make functions of the offset that attention may need, ``(size, size)`` each: a spot, a diagonal bar and a ring.

    Raises:
        ValueError: if ``size`` is less than 8.
    """
    if size < 8:
        raise ValueError(f'size must be at least 8, got {size}')
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    y, x = axis[:, None] / size, axis[None] / size  # -0.5 .. 0.5
    radius = torch.hypot(x, y)
    return {
        'spot': torch.exp(-((x - 0.15) ** 2 + (y + 0.1) ** 2) / (2 * 0.04**2)),
        'diagonal bar': torch.exp(-((x - y) ** 2) / (2 * 0.05**2) - (x + y) ** 2 / (2 * 0.25**2)),
        'ring': torch.exp(-((radius - 0.25) ** 2) / (2 * 0.04**2)),
    }


def reconstruction_sets(
    freqs: Mapping[str, Tensor], axial_theta: float, theta: float, seed: int = 0
) -> dict[str, list[Tensor]]:
    """Make the sets of frequencies to compare, each a list that begins with the first block and head.

    Args:
        freqs: frequencies of each block by its name, ``(2, heads or 1, head_dim // 2)``.
        axial_theta: base of the axial set.
        theta: base of the initial mixed sets, of which ``INITIAL_SETS`` are drawn at random for each block.
        seed: seed of the random sets.

    Returns:
        By name: the axial set, which all heads share, and, unless the model is axial itself, the sets of one head and
        of all heads of a block together, initial and learned.
    """
    learned = list(freqs.values())
    head_dim = 2 * learned[0].shape[-1]
    sets = {'axial': [axial_freqs(head_dim, axial_theta)]}
    if learned[0].shape[1] == 1:
        return sets
    generator = torch.Generator().manual_seed(seed)
    initial = [
        mixed_freqs(head_dim, torch.rand(part.shape[1], generator=generator) * 2 * math.pi, theta)
        for part in learned
        for _ in range(INITIAL_SETS)
    ]
    for kind, blocks in (('initial', initial), ('learned', learned)):
        sets[f'{kind}, one head'] = [head for block in blocks for head in block.unbind(1)]
        sets[f'{kind}, all heads'] = blocks
    return sets


def reconstruction_errors(
    functions: Mapping[str, Tensor], freqs: Mapping[str, Tensor], axial_theta: float, theta: float, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Measure the mean :func:`error` of each function over the members of each of the :func:`reconstruction_sets`.

    Args:
        functions: the functions to represent, ``(H, W)`` each.
        freqs: as in :func:`reconstruction_sets`.
        axial_theta: as in :func:`reconstruction_sets`.
        theta: as in :func:`reconstruction_sets`.
        seed: as in :func:`reconstruction_sets`.

    Returns:
        The errors by the names of function and set.
    """
    sets = reconstruction_sets(freqs, axial_theta, theta, seed)
    return {
        name: {
            kind: sum(error(function, reconstruct(function, member)[0]) for member in members) / len(members)
            for kind, members in sets.items()
        }
        for name, function in functions.items()
    }
