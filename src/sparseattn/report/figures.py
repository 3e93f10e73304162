"""Figures: the main metric against sparsity, and by the layers that are sparse."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparseattn.drawing import MANY, SERIES, Drawing, new_figure
from sparseattn.palette import Page
from sparseattn.report.summary import Summary
from sparseattn.report.tables import mean_text
from sparseattn.report.text import fraction, spell, unit
from sparseattn.stats import Mean
from sparseattn.study.arms import ArmKey
from sparseattn.words import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What every caption says of the marks.
MARKS_ARE = (
    "Small dots are seeds. With three seeds or more a mark is their mean, its bar the 95% interval "
    "over seeds, cut at the frame and left out where it is wider than the frame; one or two seeds "
    "are marks of their own."
)

#: Markers of placements, in the order of their use.
_SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*")

#: How marks are filled, each with every colour in turn.
_FILLS = ("full", "none", "left", "bottom")

#: Names with a row in the placement figure.
_ROWS = 16

#: Sparsities that the axis may name, in percent.
_TICKS = (0, 20, 40, 50, 60, 70, 75, 80, 85, 90, 92, 94, 95, 96, 97, 98, 99, 99.5, 99.9)


@dataclass(frozen=True)
class Point:
    """An arm in a figure, metrics as displayed (in percent for shares).

    Attributes:
        arm: The arm.
        sparsity: In percent; NaN if unknown.
        mean: The mean of its seeds.
        interval: The 95% interval of the mean; None for fewer than three seeds.
        values: The metric of each seed.
        words: Name and numbers as text.
    """

    arm: ArmKey
    sparsity: float
    mean: float
    interval: tuple[float, float] | None
    values: tuple[float, ...]
    words: str


def points_of(summary: Summary) -> list[Point]:
    """The arms that have a main metric."""
    metric = summary.data.headline
    scale, made = unit(metric), []
    for each in summary.arms:
        mean = each.metrics.get(metric, Mean(math.nan, None, None, 0))
        if not mean.count:
            continue
        share = each.mean("sparsity")
        ends = None
        if mean.low is not None and mean.high is not None and mean.telling:
            ends = scale * mean.low, scale * mean.high
        made.append(
            Point(
                each.arm,
                math.nan if share is None else 100 * share,
                scale * mean.value,
                ends,
                tuple(scale * float(value) for value in each.done[metric].dropna()),
                f"{each.arm}: {mean_text(metric, mean)} at sparsity {fraction(share)}",
            )
        )
    return made


class Marks:
    """The colour of each family of arms and the shape of each placement, in all figures alike.

    Families beyond the eighth have the same colours and are drawn hollow, then half filled.

    Args:
        arms: All arms of the report but the baseline.
    """

    def __init__(self, arms: Iterable[ArmKey]) -> None:
        arms = list(arms)
        self.families = list(dict.fromkeys(arm.family for arm in arms))
        self.placements = list(dict.fromkeys(arm.placement for arm in arms))

    def of(self, family: str, placement: str | None = None) -> dict[str, Any]:
        """What `plot` takes for a mark."""
        at = self.families.index(family)
        shape = 0 if placement is None else self.placements.index(placement)
        colour = f"C{at % SERIES}"
        return {
            "color": colour,
            "marker": _SHAPES[shape % len(_SHAPES)],
            "fillstyle": _FILLS[at // SERIES % len(_FILLS)],
            "markeredgecolor": colour,
        }


def limits(points: Sequence[Point], metric: str) -> tuple[float, float]:
    """Where the metric's axis ends: every seed is seen, wide intervals are cut.

    An axis in percent ends at 0 and 100, unless a value lies beyond.
    """
    values = [value for point in points for value in point.values]
    least, most = min(values), max(values)
    room = 0.4 * max(most - least, 0.5)
    lows, highs = zip(
        *(point.interval or (point.mean, point.mean) for point in points), strict=True
    )
    low, high = max(least - room, min(least, *lows)), min(most + room, max(most, *highs))
    pad = 0.05 * max(high - low, 0.5)
    low, high = low - pad, high + pad
    if unit(metric) == 100:
        low, high = max(low, min(least - pad, 0.0)), min(high, max(most + pad, 100.0))
    return low, high


def scatter(
    axes: Any, points: Sequence[Point], metric: str, marks: Marks, base: Point | None, page: Page
) -> None:
    """Draws arms against sparsity on matplotlib's axes, and the baseline as a line across."""
    axes.set_ylim(*limits([*points, *([base] if base else [])], metric))
    axes.grid(axis="y")
    if base:
        if base.interval:
            axes.axhspan(*base.interval, color=page.ink, alpha=0.1, linewidth=0)
        axes.axhline(base.mean, color=page.ink, linewidth=1, linestyle="--")
    lines: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for point in points:
        arm = point.arm
        cell = (point.sparsity, point.mean)
        lines.setdefault((arm.family, arm.line, arm.layers), []).append(cell)
        _mark(axes, point, marks, point.sparsity, upright=True)
    for (family, *_), cells in lines.items():
        if len(cells) > 1:
            across, up = zip(*sorted(cells), strict=True)
            axes.plot(across, up, color=marks.of(family)["color"], linewidth=1, alpha=0.6)
    _sparsity_axis(axes, [point.sparsity for point in points] or [base.sparsity if base else 0.0])


def _sparsity_axis(axes: Any, sparsities: Sequence[float]) -> None:
    """An axis on which halving the pairs that remain is the same step everywhere."""
    axes.set_xscale("function", functions=(_steps, lambda y: 100 * (1 - np.exp(-y))))
    low, high = _steps(np.array([min(sparsities), max(sparsities)]))
    room = max(0.06 * (high - low), (0.4 - (high - low)) / 2)
    low, high = max(low - room, -0.02), high + room
    axes.set_xlim(*(100 * (1 - np.exp(-np.array([low, high])))))
    ticks: list[float] = []
    for tick in _TICKS:
        place = _steps(np.array(tick))
        apart = not ticks or place - _steps(np.array(ticks[-1])) >= (high - low) / 8
        if low <= place <= high and apart:
            ticks.append(tick)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel("sparsity of all layers, real tokens (%, log scale of what remains)")


def _steps(sparsity: NDArray[np.float64]) -> NDArray[np.float64]:
    logs: NDArray[np.float64] = -np.log(1 - np.minimum(sparsity, 99.99) / 100)
    return logs


def _mark(axes: Any, point: Point, marks: Marks, place: float, upright: bool) -> None:
    """A point's seeds, and with three or more the mean and its interval."""
    look = marks.of(point.arm.family, point.arm.placement)

    def plot(values: Sequence[float], **kwargs: Any) -> None:
        places = [place] * len(values)
        axes.plot(*((places, values) if upright else (values, places)), **kwargs)

    if len(point.values) < 3:
        plot(point.values, **look, linestyle="none", markersize=6)
        return
    low, high = axes.get_ylim() if upright else axes.get_xlim()
    if point.interval and not (point.interval[0] <= low and point.interval[1] >= high):
        plot(point.interval, color=look["color"], linewidth=1)
    seeds = {"marker": ".", "markersize": 4, "alpha": 0.6, "linestyle": "none"}
    plot(point.values, color=look["color"], **seeds, rasterized=len(point.values) > MANY)
    plot([point.mean], **look, markersize=7)


def legend(
    figure: Figure, marks: Marks, points: Sequence[Point], base: Point | None, page: Page
) -> None:
    """A legend below the axes: families by colour, placements by shape, the baseline."""
    from matplotlib.lines import Line2D

    families = dict.fromkeys(point.arm.family for point in points)
    placements = dict.fromkeys(point.arm.placement for point in points if point.arm.layers)
    handles = [
        Line2D([], [], label=one_line(name, 32), linestyle="none", **marks.of(name))
        for name in families
    ]
    shapes = [_SHAPES[marks.placements.index(place) % len(_SHAPES)] for place in placements]
    handles += [
        Line2D([], [], label=one_line(f"layers: {place}", 24), linestyle="none", marker=shape,
               markerfacecolor="none", markeredgecolor=page.ink)
        for place, shape in zip(placements, shapes, strict=True)
    ]  # fmt: skip
    if base:
        name = one_line(base.arm.name, 32)
        handles.append(Line2D([], [], label=name, color=page.ink, linewidth=1, linestyle="--"))
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), int(figure.get_figwidth() / (0.4 + 0.085 * longest))))
    rows = math.ceil(len(handles) / columns)
    figure.set_figheight(figure.get_figheight() + 0.2 * rows)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def _parts(summary: Summary) -> tuple[list[Point], Point | None, Marks]:
    """The arms that have a metric but the baseline, the baseline, and the marks of all arms."""
    points, reference = points_of(summary), summary.data.reference
    base = next((point for point in points if point.arm == reference), None)
    marks = Marks(each.arm for each in summary.arms if each.arm != reference)
    return [point for point in points if point is not base], base, marks


def sparsity_figure(summary: Summary) -> Drawing | None:
    """Draws every arm against its sparsity, and the baseline as a line across.

    Returns:
        The drawing; None where no arm has both a metric and a sparsity.
    """
    metric, (points, base, marks) = summary.data.headline, _parts(summary)
    points = [point for point in points if not math.isnan(point.sparsity)]
    if not points and (base is None or math.isnan(base.sparsity)):
        return None
    caption = (
        f"{metric.capitalize()} against sparsity. {MARKS_ARE} The dashed line is the baseline, the "
        "band its interval. Lines join arms that differ in the first factor of their grid alone."
    )
    return _frontier("sparsity", metric, points, base, marks, caption)


def learned_figure(rows: Sequence[Mapping[str, float]]) -> Drawing:
    """Draws the score of each phase of learning against the sparsity of the plan.

    Args:
        rows: What `sparseattn.degrees.result.frontier_rows` gives; the last score is drawn.
    """
    scores = [name.removeprefix("final_") for name in rows[0] if name.startswith("final_")]
    metric = scores[-1]

    def point(phase: str, row: Mapping[str, float], sparsity: float) -> Point:
        value = row[f"{phase}_{metric}"]
        words = f"{phase}: {spell(metric, value)} at sparsity {fraction(sparsity)}"
        shown = unit(metric) * value
        return Point(ArmKey(phase), 100 * sparsity, shown, None, (shown,), words)

    phases = ("search", "discretized", "final")
    points = [point(phase, row, row["measured_sparsity"]) for phase in phases for row in rows]
    known = [each for each in points if not math.isnan(each.mean)]
    base = point("dense", rows[0], 0.0) if f"dense_{metric}" in rows[0] else None
    caption = (
        f"{metric.capitalize()} after each phase against the sparsity of the plan, one run a "
        "target. The dashed line is the dense model."
    )
    return _frontier("frontier", metric, known, base, Marks(map(ArmKey, phases)), caption)


def _frontier(
    name: str,
    metric: str,
    points: Sequence[Point],
    base: Point | None,
    marks: Marks,
    caption: str,
) -> Drawing:
    def draw(page: Page) -> Figure:
        figure = new_figure(7.2, 4.0)
        axes: Any = figure.add_subplot()
        axes.set_ylabel(one_line(metric, 26))
        scatter(axes, points, metric, marks, base, page)
        legend(figure, marks, points, base, page)
        return figure

    every = [*([base] if base else []), *points]
    words = "; ".join(point.words for point in every) + "."
    return Drawing(name, f"{metric} against sparsity", words, caption, draw)


def placement_figure(summary: Summary) -> Drawing | None:
    """Draws a row for each arm that stands on several choices of layers.

    Returns:
        The drawing; None where no arm has two placements.
    """
    metric, (points, base, marks) = summary.data.headline, _parts(summary)
    by_name: dict[str, list[Point]] = {}
    for point in points:
        by_name.setdefault(point.arm.name, []).append(point)
    several = {name: each for name, each in by_name.items() if len(each) > 1}
    if not several:
        return None
    rows = dict(list(several.items())[:_ROWS])
    drawn = [point for each in rows.values() for point in each]
    places = list(dict.fromkeys(point.arm.placement for point in drawn))

    def draw(page: Page) -> Figure:
        figure = new_figure(7.2, 0.7 + 0.2 * len(places) * len(rows))
        axes: Any = figure.add_subplot()
        axes.set_xlim(*limits([*drawn, *([base] if base else [])], metric))
        axes.set_xlabel(one_line(metric, 26))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), [one_line(name, 28) for name in rows])
        for border in range(1, len(rows)):
            axes.axhline(border - 0.5, color=page.rule, linewidth=0.8)
        if base:
            if base.interval:
                axes.axvspan(*base.interval, color=page.ink, alpha=0.1, linewidth=0)
            axes.axvline(base.mean, color=page.ink, linewidth=1, linestyle="--")
        for row, each in enumerate(rows.values()):
            for point in each:
                lane = (places.index(point.arm.placement) + 0.5) / len(places) - 0.5
                _mark(axes, point, marks, row + 0.8 * lane, upright=False)
        legend(figure, marks, drawn, base, page)
        return figure

    more = f" {len(several) - len(rows)} more arms are not drawn." if len(several) > _ROWS else ""
    return Drawing(
        name="placement",
        title=f"{metric} by the layers that are sparse",
        description="; ".join(point.words for point in drawn) + ".",
        caption=f"{metric.capitalize()} by the layers that are sparse, a line for each choice of "
        f"layers within the row of an arm. {MARKS_ARE} The dashed line is the baseline, the band "
        f"its interval.{more}",
        draw=draw,
    )
