"""Late layers against all layers."""

from __future__ import annotations

import math
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
)
from sparseattn.report.figures.svg import NARROW, Drawing
from sparseattn.report.figures.theme import Palette
from sparseattn.report.summary import Summary

__all__ = ["placement_figure"]

#: Names with a row in the figure.
_ROWS = 16


def placement_figure(summary: Summary) -> Drawing | None:
    """Draws a row for each arm that stands on several choices of layers.

    Args:
        summary: The study's arms.

    Returns:
        The drawing; None where no arm has two placements.
    """
    points, metric = points_of(summary), summary.data.headline
    base = next((point for point in points if point.arm == summary.data.reference), None)
    others = [point for point in points if point is not base]
    by_name: dict[str, list[Point]] = {}
    for point in others:
        by_name.setdefault(point.arm.name, []).append(point)
    several = {name: each for name, each in by_name.items() if len(each) > 1}
    if not several:
        return None
    rows = dict(list(several.items())[:_ROWS])
    left = len(several) - len(rows)
    caption = (
        f"{metric.capitalize()} by the layers that are sparse. {marks_are(points, 'mark')} The "
        "line down is the baseline, a band its own interval."
    )
    return Drawing(
        name="placement",
        title=f"{metric} by the layers that are sparse",
        description="; ".join(p.words for each in rows.values() for p in each) + ".",
        caption=f"{caption} {left} more arms are not drawn." if left else caption,
        draw=_Rows(rows, [point.arm.placement for point in others], metric, base).draw,
    )


@dataclass(frozen=True)
class _Rows:
    """The figure's content: the points of each name, and the placements of the whole study."""

    rows: dict[str, list[Point]]
    placements: list[str]
    metric: str
    base: Point | None

    def draw(self, width: int, colours: Palette) -> Figure:
        """See `sparseattn.report.figures.svg.Draw`."""
        narrow = width <= NARROW
        length, per_line = (14, 2) if narrow else (24, 4)
        shapes, tint = marks(self.placements), series(self.placements, colours)
        drawn = {p.arm.placement: None for each in self.rows.values() for p in each}
        entries = [(f"layers: {crop(p, 16)}", tint[p], shapes[p]) for p in drawn]
        if self.base:
            entries.append((crop(self.base.arm.name), colours["quiet"], "|"))
        lines = math.ceil(len(entries) / per_line)
        left = 14 + 7 * max(len(crop(name, length)) for name in self.rows)
        height = max(34, 13 * len(drawn) + 8) * len(self.rows) + 66 + 20 * lines
        figure, axes = new_figure(width, height, (left, 16, 46 + 20 * lines, 10), colours)
        self._frame(axes, [crop(name, length) for name in self.rows], colours)
        step = 0.7 / max(len(drawn), 2)
        for row, each in enumerate(self.rows.values()):
            for point in each:
                place = point.arm.placement
                y = row + step * (list(drawn).index(place) - (len(drawn) - 1) / 2)
                if point.half:
                    ends = [point.mean - point.half, point.mean + point.half]
                    axes.plot(ends, [y, y], color=tint[place], lw=1.8, solid_capstyle="round")
                axes.plot([point.mean], [y], marker=shapes[place], color=tint[place], ms=7.5)
        legend(figure, entries, per_line, colours["ink"])
        return figure

    def _frame(self, axes: Any, names: list[str], colours: Palette) -> None:
        """The names down the side, the metric below, the baseline across all rows."""
        points = [point for each in self.rows.values() for point in each]
        axes.set_xlim(*limits([*points, *([self.base] if self.base else [])], self.metric))
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", length=0, labelcolor=colours["ink"])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(crop(self.metric))
        for border in range(1, len(names)):
            axes.axhline(border - 0.5, color=colours["rule"], linewidth=0.8)
        if self.base:
            ends = self.base.mean - self.base.half, self.base.mean + self.base.half
            axes.axvspan(*ends, color=colours["band"], linewidth=0)
            axes.axvline(
                self.base.mean, color=colours["quiet"], linewidth=1.2, linestyle=(0, (5, 3))
            )
