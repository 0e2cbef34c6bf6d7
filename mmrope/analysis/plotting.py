"""Figures in colours and markers that colour-blind readers tell apart.

They are drawn without pyplot, which would keep global state and choose a display backend.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours without yellow, which is hard to see on a light background.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#000000')
MARKERS = 'os^Dv<>'
STYLES = tuple(zip(COLOURS, MARKERS, strict=True))
GREY = '#777777'
SAME_PLACE = 0.005  # relative; closer sizes share a tick, since images are resized to whole pixels
FROM_ZERO = ('time', 'memory')  # axes that begin at zero, because their ratios are of interest


@contextmanager
def saved_figure(out: Path, rows: int, cols: int, size: tuple[float, float], **options: Any) -> Iterator[np.ndarray]:
    """Make axes, and save their figure on exit.

    Args:
        out: path of the image; its folder is created.
        rows: rows of axes.
        cols: columns of axes.
        size: ``(width, height)`` of each of the axes, in inches.
        options: arguments of ``Figure.subplots``.

    Yields:
        The axes, ``(rows, cols)``.
    """
    with matplotlib.rc_context({'font.size': 10, 'axes.spines.top': False, 'axes.spines.right': False}):
        figure = Figure(figsize=(size[0] * cols, size[1] * rows), layout='constrained', facecolor='white')
        yield figure.subplots(rows, cols, squeeze=False, **options)
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=130)


def add_tick(ticks: dict[float, str], place: float, text: str) -> None:
    """Add a tick to those of an axis; if there is one at this place, it gets both texts."""
    place = next((other for other in ticks if math.isclose(other, place, rel_tol=SAME_PLACE)), place)
    known = ticks.get(place, '').split('\n') if place in ticks else []
    ticks[place] = '\n'.join(dict.fromkeys([*known, text]))


def draw_panels(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    ticks: Mapping[float, str],
    out: Path,
    ylabel: str | None = None,
    dashed: float | None = None,
) -> None:
    """Draw panels of curves over the image size.

    Args:
        panels: for each panel its vertical axis, or with ``ylabel`` its title, and the points ``(size, value)`` of each
            curve by its name. Several points at a size are drawn small, and the curve goes through their mean.
        ticks: the image sizes in pixels, and the text of each.
        out: image to write.
        ylabel: the vertical axis of all panels, which then have one scale.
        dashed: the image size of the training, which is marked.
    """
    with saved_figure(out, 1, len(panels), (4.5, 3.8), sharey=ylabel is not None) as axes:
        for axis, (label, curves) in zip(axes[0], panels.items(), strict=True):
            for (name, points), (colour, marker) in zip(curves.items(), cycle(STYLES)):
                draw_curve(axis, points, colour, marker, name)
            if dashed is not None:
                axis.axvline(dashed, color=GREY, linestyle='--', linewidth=1, label=f'trained at {dashed:g} pixels')
            if any(len(points) > len(dict(points)) for points in curves.values()):
                axis.plot([], [], '.', color=GREY, markersize=4, label='one measurement')
            axis.set(xlabel='image size (pixels)', xscale='log')
            axis.set(**({'ylabel': label} if ylabel is None else {'title': label, 'ylabel': ylabel}))
            axis.set_xticks(list(ticks), list(ticks.values()))
            axis.minorticks_off()
            if label.startswith(FROM_ZERO):
                axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
            axis.legend(edgecolor='none', framealpha=0.8, fontsize=9)


def draw_curve(axis: Axes, points: Sequence[tuple[float, float]], colour: str, marker: str, name: str) -> None:
    """Draw a curve through the mean at each size, and behind it the single points where there are several."""
    values: dict[float, list[float]] = {}
    for size, value in sorted(points):
        values.setdefault(size, []).append(value)
    if len(points) > len(values):
        axis.plot(*zip(*points, strict=True), color=colour, marker='.', markersize=4, linestyle='', alpha=0.5)
    means = [mean(several) for several in values.values()]
    axis.plot(list(values), means, color=colour, marker=marker, markersize=5, linewidth=1.8, label=name)
