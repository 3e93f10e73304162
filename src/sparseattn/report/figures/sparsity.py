"""The main metric against sparsity."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from sparseattn.report.figures.axes import (
    Point,
    crop,
    legend,
    limits,
    marks,
    marks_are,
    new_figure,
    points_of,
    series,
    spread_out,
)
from sparseattn.report.figures.svg import NARROW, Drawing
from sparseattn.report.figures.theme import SERIES, Palette
from sparseattn.report.summary import Summary

__all__ = ["sparsity_figure"]

#: Up to this many names stand beside their points; more are told apart by placement only.
_LABELS = 14

#: Points further than this from the baseline, in percent, have the axis for themselves.
_FAR = 45.0

#: The least that the axis covers, in percent: nearer sparsities are to look alike.
_SPAN = 5.0

#: How far points at one sparsity may be set apart, as a share of the axis.
_APART = 0.1


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
    metric = summary.data.headline
    base = next((point for point in points if point.arm == summary.data.reference), None)
    caption = (
        f"{metric.capitalize()} against sparsity. {marks_are(points, 'point')} The line across is "
        "the baseline, a band its own interval. Points at one sparsity are set apart, over "
        f"up to {_APART:.0%} of the axis: the table has the exact values. Those of one grid are "
        "joined."
    )
    return Drawing(
        name="sparsity",
        title=f"{metric} against sparsity",
        description="; ".join(point.words for point in points) + ".",
        caption=caption,
        draw=_Scatter([p for p in points if p is not base], metric, base).draw,
    )


@dataclass(frozen=True)
class _Scatter:
    """The figure's content: the arms, and the baseline if there is one."""

    points: list[Point]
    metric: str
    base: Point | None

    def draw(self, width: int, colours: Palette) -> Figure:
        """See `sparseattn.report.figures.svg.Draw`."""
        narrow = width <= NARROW
        length, per_line = (15, 2) if narrow else (24, 5)
        placements = [point.arm.placement for point in self.points]
        shapes, lines = marks(placements), math.ceil(len(set(placements)) / per_line)
        names = list(dict.fromkeys(point.arm.family for point in self.points))
        labelled = len(names) <= _LABELS
        tint = series(names if labelled else placements, colours)
        # Those whose colour another one has had are drawn hollow, and their names slanted.
        hollow = set(names[len(SERIES) :]) if labelled else set()
        beside = [*names, *([self.base.arm.family] if self.base else [])]
        right = 8 + 7 * max(len(crop(n, length)) for n in beside) if labelled else 24
        height = (335 if narrow else 375) + 20 * lines
        figure, axes = new_figure(width, height, (40, right, 50 + 20 * lines, 26), colours)
        self._frame(axes, colours)
        places = _set_apart(self.points, width - 40 - right)
        drawn = list(zip(self.points, places, strict=True))
        if labelled:
            _join(axes, drawn, tint)
        for point, x in drawn:
            place = point.arm.placement
            colour = tint[point.arm.family if labelled else place]
            again = point.arm.family in hollow
            _mark(axes, point, x, colour, shapes[place], colours["page"], again)
        low, high = axes.get_xlim()
        if high - low < _SPAN:
            low = min(max(0.0, (low + high - _SPAN) / 2), 100.0 - _SPAN)
            axes.set_xlim(low - _SPAN / 50, low + _SPAN * 1.02)
        if labelled:
            at_border = [(self.base, axes.get_xlim()[1])] if self.base else []
            inks = dict.fromkeys(beside, colours["ink"]) | tint
            _labels(axes, [*drawn, *at_border], inks, length, hollow)
        entries = [
            (f"layers: {crop(p, 14)}", colours["quiet"] if labelled else tint[p], shape)
            for p, shape in shapes.items()
        ]
        legend(figure, entries, per_line, colours["ink"])
        return figure

    def _frame(self, axes: Any, colours: Palette) -> None:
        """The axes, and the baseline across them."""
        base = self.base
        axes.set_ylim(*limits([*self.points, *([base] if base else [])], self.metric))
        axes.grid(axis="y", color=colours["rule"], linewidth=0.8)
        axes.set_title(crop(self.metric), loc="left", fontsize=11, color=colours["ink"])
        axes.set_xlabel("sparsity over real tokens (%)")
        if base:
            low, high = base.mean - base.half, base.mean + base.half
            axes.axhspan(low, high, color=colours["band"], linewidth=0)
            axes.axhline(base.mean, color=colours["quiet"], linewidth=1.2, linestyle=(0, (5, 3)))
            lowest = min((point.sparsity for point in self.points), default=0.0)
            if lowest - base.sparsity < _FAR:
                axes.plot([base.sparsity], [base.mean], marker="o", color=colours["ink"], ms=7)


def _join(axes: Any, drawn: Sequence[tuple[Point, float]], tint: dict[str, str]) -> None:
    """Joins the cells of a grid on one placement, from the densest to the sparsest."""
    lines: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for point, x in drawn:
        lines[point.arm.family, point.arm.layers].append((x, point.mean))
    for (name, _), cells in lines.items():
        if len(cells) > 1:
            across, up = zip(*sorted(cells), strict=True)
            axes.plot(across, up, color=tint[name], linewidth=1.2, alpha=0.7, zorder=1.5)


def _mark(
    axes: Any, point: Point, x: float, colour: str, shape: str, edge: str, hollow: bool
) -> None:
    if point.half:
        ends = [point.mean - point.half, point.mean + point.half]
        axes.plot([x, x], ends, color=colour, linewidth=1.8, solid_capstyle="round")
    inside, rim, width = (edge, colour, 1.8) if hollow else (colour, edge, 0.8)
    axes.plot([x], [point.mean], marker=shape, color=colour, mfc=inside, ms=8.6, mec=rim, mew=width)


def _set_apart(points: Sequence[Point], pixels: int) -> list[float]:
    """Where the points stand along the axis, so that equal sparsities do not hide each other."""
    every = [point.sparsity for point in points]
    every += [0.0] if not every or min(every) < _FAR else []
    span = max(max(every) - min(every), _SPAN)
    step = span * 8 / pixels
    groups: dict[int, list[int]] = defaultdict(list)
    for index, point in enumerate(points):
        groups[round(point.sparsity / (3 * step))].append(index)
    places = [point.sparsity for point in points]
    for members in groups.values():
        if len(members) > 1:
            gap = min(step, _APART * span / (len(members) - 1))
            moved = spread_out([places[i] for i in members], gap, -math.inf, math.inf)
            for index, place in zip(members, moved, strict=True):
                places[index] = place
    return places


def _labels(
    axes: Any,
    drawn: Sequence[tuple[Point, float]],
    tint: dict[str, str],
    length: int,
    hollow: set[str],
) -> None:
    """Names each arm once at the right border, with a thin line to its rightmost point.

    The cells of a grid share a name.
    """
    ends: dict[str, tuple[Point, float]] = {}
    for point, x in drawn:
        if point.arm.family not in ends or x > ends[point.arm.family][1]:
            ends[point.arm.family] = (point, x)
    low, high = axes.get_ylim()
    left, border = axes.get_xlim()
    axes.set_xlim(left, border)
    gap = 15 * (high - low) / axes.get_window_extent().height
    places = spread_out([p.mean for p, _ in ends.values()], gap, low + gap / 2, high - gap / 2)
    for (name, (point, x)), y in zip(ends.items(), places, strict=True):
        colour = tint[name]
        axes.plot([x, border], [point.mean, y], color=colour, linewidth=0.6, alpha=0.55, zorder=1)
        axes.annotate(
            crop(name, length),
            (border, y),
            xytext=(4, 0),
            textcoords="offset points",
            color=colour,
            style="italic" if name in hollow else "normal",
            va="center",
            annotation_clip=False,
        )
