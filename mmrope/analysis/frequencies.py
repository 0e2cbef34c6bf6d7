"""Changes of a model's frequencies in training, and the functions that a set of frequencies can represent.

Frequencies are points of the plane, in radians per step of the position along x and y; a step is a token, except in
families with other rules of positions. Those of RoPE-Mixed start, for each head,
as the axial ones turned by a random angle: on circles of radius ``theta ** (-4 k / head_dim)``, one half at the angle
and the other half at a right angle to it. A checkpoint does not hold that angle. Without the initial checkpoint, the
learned frequencies are compared with the nearest possible initial set, which gives a lower bound of the change.

RoPE-ViT's paper shows with a Fourier transform that axial frequencies represent less than mixed ones. Its exact
procedure is not known here; :func:`reconstruct` is this project's choice.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..layers import Attention, Positions, axial_freqs, mixed_freqs
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


@dataclass(frozen=True)
class Frequencies:
    """Frequencies of a backbone, and what they start from.

    Attributes:
        blocks: those of each block with RoPE by its name, ``(2, heads or 1, head_dim // 2)`` in float64, in radians per
            step of the position along x and y.
        mixed: whether they are those of RoPE-Mixed, which are learned.
        theta: base of RoPE-Mixed, the backbone's or, if it is axial, the paper's.
        axial_theta: base of RoPE-Axial, the backbone's or, if it is mixed, the paper's.
        positions: rule of each block from a token's index to its position.
    """

    blocks: dict[str, Tensor]
    mixed: bool
    theta: float
    axial_theta: float
    positions: dict[str, Positions]

    def only(self, name: str) -> 'Frequencies':
        """Return those of one block."""
        return replace(self, blocks={name: self.blocks[name]})

    def step(self, name: str, size: int) -> Tensor:
        """Return the step of a block's position from one token to the next of a ``size`` x ``size`` grid.

        It is 1 except in families with other rules of positions. The shape is ``(2, 1, 1)``, along x and y.
        """
        (down, right), _ = self.positions[name].line((size, size))
        return torch.tensor([right, down], dtype=torch.float64)[:, None, None]

    def per_token(self, name: str, size: int) -> Tensor:
        """Return those of a block in radians per token of a ``size`` x ``size`` grid."""
        return self.blocks[name] * self.step(name, size)


def frequencies_of(backbone: RoPEViT | RoPESwin) -> Frequencies:
    """Read the frequencies of a backbone; without RoPE there are no blocks."""
    layers = {
        name.removesuffix('.attn'): layer.rope
        for name, layer in backbone.named_modules()
        if isinstance(layer, Attention) and layer.rope is not None
    }
    mixed = any(isinstance(rope.freqs, nn.Parameter) for rope in layers.values())
    thetas = dict((vit if isinstance(backbone, RoPEViT) else swin).THETAS)
    for rope in layers.values():
        thetas['mixed' if mixed else 'axial'] = rope.theta
    return Frequencies(
        {name: rope.freqs.detach().cpu().double() for name, rope in layers.items()},
        mixed,
        thetas['mixed'],
        thetas['axial'],
        {name: rope.positions for name, rope in layers.items()},
    )


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


def reconstruction_sets(frequencies: Frequencies, size: int, seed: int = 0) -> dict[str, list[Tensor]]:
    """Make the sets of frequencies to compare, each a list that begins with the first block and head.

    Args:
        frequencies: of a backbone.
        size: side of the grid.
        seed: seed of the random sets, of which ``INITIAL_SETS`` are drawn for each block.

    Returns:
        By name, in radians per token: the axial set of each block and, if the backbone is mixed, the sets of one head
        and of all heads of a block together, initial and learned.
    """
    generator = torch.Generator().manual_seed(seed)
    axial, initial, learned = [], [], []
    for name, part in frequencies.blocks.items():
        head_dim, step = 2 * part.shape[-1], frequencies.step(name, size)
        axial.append(axial_freqs(head_dim, frequencies.axial_theta) * step)
        learned.append(part * step)
        for _ in range(INITIAL_SETS):
            angles = torch.rand(part.shape[1], generator=generator) * 2 * math.pi
            initial.append(mixed_freqs(head_dim, angles, frequencies.theta) * step)
    sets = {'axial': axial}
    for kind, blocks in (('initial', initial), ('learned', learned)) if frequencies.mixed else ():
        sets[f'{kind}, one head'] = [head for block in blocks for head in block.unbind(1)]
        sets[f'{kind}, all heads'] = blocks
    return sets


def reconstruction_errors(
    functions: Mapping[str, Tensor], frequencies: Frequencies, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Measure the mean :func:`error` of each function over the members of each of the :func:`reconstruction_sets`.

    Args:
        functions: the functions to represent, square and of one size.
        frequencies: of a backbone.
        seed: as in :func:`reconstruction_sets`.

    Returns:
        The errors by the names of function and set.
    """
    sets = reconstruction_sets(frequencies, len(next(iter(functions.values()))), seed)
    return {
        name: {
            kind: sum(error(function, reconstruct(function, member)[0]) for member in members) / len(members)
            for kind, members in sets.items()
        }
        for name, function in functions.items()
    }
