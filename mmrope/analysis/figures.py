"""Pictures of attention and frequencies, in colours and markers that colour-blind readers tell apart."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from operator import itemgetter
from pathlib import Path

import numpy as np
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from ..layers import axial_freqs
from .attention import BlockStatistics
from .frequencies import Frequencies
from .plotting import COLOURS, GREY, MARKERS, saved_figure


def draw_attention(curves: Mapping[str, Sequence[BlockStatistics]], out: Path) -> None:
    """Draw mean attention distance and entropy by block: a curve for each checkpoint, a dot for each head.

    A dashed line shows uniform attention, with equal weight on all keys. It is grey where all checkpoints share it.
    """
    panels = {
        'mean attention distance (pixels)': lambda block: (block.distance_px, block.uniform_distance_px),
        'attention entropy (nats)': lambda block: (block.entropy_nats, block.uniform_entropy_nats),
    }
    with saved_figure(out, 1, 2, (4.5, 3.6)) as axes:
        for axis, (label, read) in zip(axes[0], panels.items()):
            shared = len({tuple(read(block)[1] for block in blocks) for blocks in curves.values()}) == 1
            for i, ((name, blocks), colour, marker) in enumerate(zip(curves.items(), cycle(COLOURS), cycle(MARKERS))):
                heads, uniform = zip(*map(read, blocks))
                at = np.arange(len(blocks)) + 0.12 * (i - (len(curves) - 1) / 2)
                for x, values in zip(at, heads):
                    axis.plot([x] * len(values), values, '.', color=colour, alpha=0.45, markersize=5)
                axis.plot(uniform, '--', color=GREY if shared else colour, linewidth=1)
                axis.plot(at, [np.mean(values) for values in heads], color=colour, marker=marker, label=name)
            axis.set(xlabel='block', ylabel=label, ylim=(0, None))
            axis.xaxis.set_major_locator(MaxNLocator(12, integer=True))
            axis.grid(alpha=0.3)
        axes[0, 0].plot([], [], '--', color=GREY, linewidth=1, label='uniform attention')
        axes[0, 0].plot([], [], '.', color=GREY, label='one head')
        handles, labels = axes[0, 0].get_legend_handles_labels()
        axes[0, 0].figure.legend(handles, labels, loc='outside lower center', ncols=4, frameon=False)


def draw_maps(
    image: Tensor, query: tuple[int, int], maps: Mapping[str, Tensor], heads: Sequence[int], out: Path
) -> None:
    """Draw attention maps of a query over the image: a column per block, a row for the mean of heads and per head.

    Args:
        image: the network's input, ``(1, 3, H, W)``; drawn in grey.
        query: the pixel ``(x, y)``.
        maps: from :func:`attention.attention_maps`.
        heads: heads to draw in addition to the mean.
        out: image to write.
    """
    grey = image[0].float().mean(0).cpu().numpy()
    height, width = grey.shape
    panels: dict[str, Callable[[Tensor], Tensor]] = {'mean of heads': lambda weights: weights.mean(0)}
    panels |= {f'head {i}': itemgetter(i) for i in heads}
    with saved_figure(out, len(panels), len(maps), (2.0, 2.0 * height / width + 0.3)) as axes:
        for row, (title, choose) in zip(axes, panels.items()):
            for axis, (name, of_heads) in zip(row, maps.items()):
                weights = choose(of_heads).float().cpu().numpy()
                weights = weights / np.nanmax(weights)
                bottom, right = (np.ceil(side / n) * n - 0.5 for side, n in zip((height, width), weights.shape))
                # only the query's window is tinted, and large weights cover the image
                alpha = np.nan_to_num(0.2 + 0.6 * weights)
                axis.imshow(grey, cmap='gray')
                extent = (-0.5, right, bottom, -0.5)
                shown = axis.imshow(weights, cmap='viridis', vmin=0, vmax=1, alpha=alpha, extent=extent)
                axis.plot(*query, 'x', color=COLOURS[1], markersize=8, markeredgewidth=2.5, label='query')
                axis.spines[:].set_visible(False)
                axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
                axis.set_title(f'{name}, {title}', fontsize=9)
        axes[0, 0].figure.legend(*axes[0, 0].get_legend_handles_labels(), loc='outside lower center', frameon=False)
        axes[0, 0].figure.colorbar(shown, ax=axes, label='weight / maximum')


def draw_frequencies(frequencies: Frequencies, initial: Mapping[str, Tensor] | None, out: Path) -> None:
    """Draw the frequencies of each block in the plane: learned, where they started, and the axial ones.

    Args:
        frequencies: of a backbone; the radii of the initial ones are drawn as circles.
        initial: the ``blocks`` of the initial ones; ``None`` if only the circles are known.
        out: image to write.
    """
    freqs, theta = frequencies.blocks, frequencies.theta
    axials = {name: axial_freqs(2 * part.shape[-1], frequencies.axial_theta) for name, part in freqs.items()}
    by_token = all(positions.rule == 'index' for positions in frequencies.positions.values())
    unit = 'rad / token' if by_token else 'rad / step of the position'
    cols = min(4, len(freqs))
    rows = math.ceil(len(freqs) / cols)
    reach = 1.1 * max(float(part.abs().max()) for part in (*freqs.values(), *axials.values()))
    with saved_figure(out, rows, cols, (2.6, 2.6), sharex=True, sharey=True) as axes:
        for axis in axes.flat[len(freqs) :]:
            axis.axis('off')
        for axis, (name, part) in zip(axes.flat, freqs.items()):
            for k in range(part.shape[-1] // 2):
                radius = theta ** (-2 * k / part.shape[-1])
                axis.add_patch(Circle((0, 0), radius, fill=False, color=GREY, linewidth=0.5, alpha=0.5))
            axis.plot(*axials[name].flatten(1), 's', color=COLOURS[2], markersize=4, fillstyle='none', label='axial')
            if initial is not None:
                points = initial[name].flatten(1)
                axis.plot(*points, 'o', color=COLOURS[1], markersize=4, fillstyle='none', label='initial')
            axis.plot(*part.flatten(1), '.', color=COLOURS[0], markersize=4, alpha=0.7, label='learned')
            axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect='equal')
            axis.set_title(name, fontsize=9)
        for col in range(cols):
            lowest = axes[(len(freqs) - 1 - col) // cols, col]
            lowest.set_xlabel(f'x ({unit})')
            lowest.tick_params(labelbottom=True)
        for axis in axes[:, 0]:
            axis.set_ylabel(f'y ({unit})')
        axes[0, 0].plot([], [], color=GREY, linewidth=0.5, label='radii of the initial frequencies')
        handles, labels = axes[0, 0].get_legend_handles_labels()
        axes[0, 0].figure.legend(handles, labels, loc='outside lower center', ncols=4, frameon=False, fontsize=9)


def draw_reconstructions(rows: Mapping[str, Sequence[tuple[str, Tensor]]], out: Path) -> None:
    """Draw functions and their reconstructions: a row per function, with titles and values of its panels in order."""
    cols = max(map(len, rows.values()))
    with saved_figure(out, len(rows), cols, (1.9, 2.2)) as axes:
        for line, panels in zip(axes, rows.values()):
            low, high = float(panels[0][1].min()), float(panels[0][1].max())
            for axis, (title, values) in zip(line, panels):
                shown = axis.imshow(values.cpu().numpy(), cmap='viridis', vmin=low, vmax=high)
                axis.spines[:].set_visible(False)
                axis.set(xticks=[], yticks=[])
                axis.set_title(title, fontsize=10)
            line[0].figure.colorbar(shown, ax=line, label='value')
