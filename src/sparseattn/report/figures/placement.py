"""Late layers against all layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

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
    points = points_of(summary)
    metric, base = summary.data.headline, summary.data.reference
    by_name: dict[str, list[Point]] = {}
    for point in points:
        by_name.setdefault(point.arm.name, []).append(point)
    several = {name: each for name, each in by_name.items() if len(each) > 1}
    if not several:
        return None
    rows = dict(list(several.items())[:_ROWS])
    left = len(several) - len(rows)
    caption = (
        f"{metric.capitalize()} by the layers that are sparse. A mark is the mean over seeds, the "
        "bar its 95% interval; the line down is the baseline."
        + (f" {left} more arms are not drawn." if left else "")
    )
    return Drawing(
        name="placement",
        title=f"{metric} by the layers that are sparse",
        description="; ".join(p.words for each in rows.values() for p in each) + ".",
        caption=caption,
        draw=partial(_draw, rows, metric, next((p for p in points if p.arm == base), None)),
    )


def _draw(
    rows: dict[str, Sequence[Point]], metric: str, base: Point | None, width: int, colours: Palette
) -> Figure:
    narrow = width <= NARROW
    placements = list(dict.fromkeys(p.arm.placement for each in rows.values() for p in each))
    tint = series(placements, colours)
    shapes = {p: SHAPES[i % len(SHAPES)] for i, p in enumerate(placements)}
    length = 14 if narrow else 24
    left = 14 + 7 * max(len(crop(name, length)) for name in rows)
    per_line = 2 if narrow else 4
    lines = math.ceil((len(placements) + bool(base)) / per_line)
    tall = max(34, 13 * len(placements) + 8)
    height = tall * len(rows) + 66 + 20 * lines
    figure, axes = new_figure(width, height, (left, 16, 46 + 20 * lines, 10), colours)
    every = [*(p for each in rows.values() for p in each), *([base] if base else [])]
    axes.set_xlim(*limits(every))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [crop(name, length) for name in rows])
    axes.tick_params(axis="y", length=0, labelcolor=colours["ink"])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(crop(metric))
    for border in range(1, len(rows)):
        axes.axhline(border - 0.5, color=colours["rule"], linewidth=0.8)
    if base:
        ends = base.mean - base.half, base.mean + base.half
        axes.axvspan(*ends, color=colours["band"], linewidth=0)
        axes.axvline(base.mean, color=colours["quiet"], linewidth=1.2, linestyle=(0, (5, 3)))
    step = 0.7 / max(len(placements), 2)
    for row, each in enumerate(rows.values()):
        for point in each:
            place = placements.index(point.arm.placement)
            y = row + step * (place - (len(placements) - 1) / 2)
            colour = tint[point.arm.placement]
            if point.half:
                across = [point.mean - point.half, point.mean + point.half]
                axes.plot(across, [y, y], color=colour, linewidth=1.8, solid_capstyle="round")
            axes.plot([point.mean], [y], marker=shapes[point.arm.placement], color=colour, ms=7.5)
    entries = [(f"layers: {crop(p, 16)}", tint[p], shapes[p]) for p in placements]
    if base:
        entries.append((crop(base.arm.name), colours["quiet"], "|"))
    legend(figure, entries, per_line, colours["ink"])
    return figure
