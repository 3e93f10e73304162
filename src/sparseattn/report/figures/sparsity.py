"""The main metric against sparsity."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

from matplotlib.figure import Figure

from sparseattn.report.figures.axes import (
    SHAPES,
    Point,
    crop,
    legend,
    limits,
    new_figure,
    points_of,
    series,
    spread_out,
)
from sparseattn.report.figures.svg import NARROW, Drawing
from sparseattn.report.figures.theme import Palette
from sparseattn.report.summary import Summary

__all__ = ["sparsity_figure"]

#: Up to this many names stand beside their points; more are told apart by placement only.
_LABELS = 14


def sparsity_figure(summary: Summary) -> Drawing | None:
    """Draws every arm as a point with its interval, and the baseline as a line across.

    Args:
        summary: The study's arms.

    Returns:
        The drawing; None where no arm has both a metric and a sparsity.
    """
    points = [point for point in points_of(summary) if not math.isnan(point.sparsity)]
    if not points:
        return None
    metric, base = summary.data.headline, summary.data.reference
    caption = (
        f"{metric.capitalize()} against sparsity. A point is the mean over seeds, the bar its 95% "
        "interval, the line across the baseline. Points at one sparsity are set a little apart."
    )
    return Drawing(
        name="sparsity",
        title=f"{metric} against sparsity",
        description="; ".join(point.words for point in points) + ".",
        caption=caption,
        draw=partial(_draw, points, metric, next((p for p in points if p.arm == base), None)),
    )


def _draw(
    points: Sequence[Point], metric: str, base: Point | None, width: int, colours: Palette
) -> Figure:
    narrow = width <= NARROW
    shown = [point for point in points if point is not base]
    names = list(dict.fromkeys(point.arm.name for point in shown))
    placements = list(dict.fromkeys(point.arm.placement for point in shown))
    labelled = len(names) <= _LABELS
    tint = series(names if labelled else placements, colours)
    shapes = {p: SHAPES[i % len(SHAPES)] for i, p in enumerate(placements)}
    length = 13 if narrow else 24
    room = 8 + 7 * max((len(crop(n, length)) for n in [*names, "dense"]), default=0)
    right = room if labelled else 24
    rows = math.ceil(len(placements) / (2 if narrow else 5))
    margins = (46 if narrow else 58, right, 50 + 20 * rows, 10)
    figure, axes = new_figure(width, (320 if narrow else 360) + 20 * rows, margins, colours)
    axes.set_ylim(*limits(points))
    axes.grid(axis="y", color=colours["rule"], linewidth=0.8)
    axes.set_ylabel(crop(metric))
    axes.set_xlabel("sparsity over real tokens (%)")
    if base:
        _baseline(axes, base, colours)
    drawn = [(point, x) for point, x in zip(shown, _set_apart(shown, width - margins[0] - right), strict=True)]
    for point, x in drawn:
        colour = tint[point.arm.name if labelled else point.arm.placement]
        _point(axes, point, x, colour, shapes[point.arm.placement])
    if labelled:
        at_border = [(base, axes.get_xlim()[1])] if base else []
        _labels(axes, [*drawn, *at_border], tint, colours, length)
    entries = [
        (f"layers: {crop(p, 14)}", colours["quiet"] if labelled else tint[p], shapes[p])
        for p in placements
    ]
    legend(figure, entries, 2 if narrow else 5, colours["ink"])
    return figure


def _baseline(axes: Any, base: Point, colours: Palette) -> None:
    axes.axhspan(base.mean - base.half, base.mean + base.half, color=colours["band"], linewidth=0)
    axes.axhline(base.mean, color=colours["quiet"], linewidth=1.2, linestyle=(0, (5, 3)))
    axes.plot([base.sparsity], [base.mean], marker="o", color=colours["ink"], markersize=7)


def _point(axes: Any, point: Point, x: float, colour: str, shape: str) -> None:
    if point.half:
        ends = [point.mean - point.half, point.mean + point.half]
        axes.plot([x, x], ends, color=colour, linewidth=1.8, solid_capstyle="round")
    axes.plot([x], [point.mean], marker=shape, color=colour, markersize=7.5)


def _set_apart(points: Sequence[Point], pixels: int) -> list[float]:
    """Where the points stand along the axis, so that equal sparsities do not hide each other."""
    every = [0.0, *(point.sparsity for point in points)]
    step = max(max(every) - min(every), 5.0) * 8 / pixels
    groups: dict[int, list[int]] = defaultdict(list)
    for index, point in enumerate(points):
        groups[round(point.sparsity / (3 * step))].append(index)
    places = [point.sparsity for point in points]
    for members in groups.values():
        if len(members) > 1:
            moved = spread_out([places[i] for i in members], step, -math.inf, math.inf)
            for index, place in zip(members, moved, strict=True):
                places[index] = place
    return places


def _labels(
    axes: Any,
    drawn: Sequence[tuple[Point, float]],
    tint: dict[str, str],
    colours: Palette,
    length: int,
) -> None:
    """Names each arm once at the right border, with a thin line to its rightmost point."""
    ends: dict[str, tuple[Point, float]] = {}
    for point, x in drawn:
        if point.arm.name not in ends or x > ends[point.arm.name][1]:
            ends[point.arm.name] = (point, x)
    low, high = axes.get_ylim()
    pixels = axes.get_window_extent().height
    gap = 15 * (high - low) / pixels
    places = spread_out([p.mean for p, _ in ends.values()], gap, low + gap / 2, high - gap / 2)
    border = axes.get_xlim()[1]
    axes.set_xlim(axes.get_xlim()[0], border)
    for (name, (point, x)), y in zip(ends.items(), places, strict=True):
        colour = tint.get(name, colours["ink"])
        axes.plot([x, border], [point.mean, y], color=colour, linewidth=0.6, alpha=0.55, zorder=1)
        axes.annotate(
            crop(name, length),
            (border, y),
            xytext=(4, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            annotation_clip=False,
        )
