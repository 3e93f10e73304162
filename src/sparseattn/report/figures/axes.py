"""What the figures share: points, limits, labels and plain axes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sparseattn.report.data import Arm
from sparseattn.report.figures.theme import SERIES, Palette
from sparseattn.report.summary import Summary
from sparseattn.report.tables import mean_text
from sparseattn.report.text import fraction, unit
from sparseattn.stats import Mean

__all__ = [
    "Point",
    "crop",
    "legend",
    "limits",
    "marks",
    "marks_are",
    "new_figure",
    "points_of",
    "series",
    "spread_out",
]

#: Markers for placements, in the order of their use.
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*")

_DOTS_PER_INCH = 72


@dataclass(frozen=True)
class Point:
    """An arm in a figure.

    Attributes:
        arm: The arm.
        sparsity: In percent; NaN if unknown.
        mean: Its main metric as displayed, in hundredths for shares.
        half: Half its interval; 0 if unknown.
        values: The metric of each seed.
        words: What to say of it in a text alternative.
    """

    arm: Arm
    sparsity: float
    mean: float
    half: float
    values: tuple[float, ...]
    words: str


def marks_are(points: Iterable[Point], mark: str) -> str:
    """Says what a mark of a figure stands for, for its caption.

    Args:
        points: The arms of the figure.
        mark: What it is called: `point`.
    """
    if all(len(point.values) < 2 for point in points):
        return f"A {mark} is one seed: how far another would lie from it is not known."
    return (
        f"A {mark} is the mean over seeds, the bar its 95% interval, cut where it leaves the frame."
    )


def points_of(summary: Summary) -> list[Point]:
    """The arms that have a main metric."""
    metric = summary.data.headline
    made = []
    for each in summary.arms:
        mean = each.metrics.get(metric, Mean(float("nan"), None, None, 0))
        if not mean.count:
            continue
        share, scale = each.mean("sparsity"), unit(metric)
        made.append(
            Point(
                each.arm,
                float("nan") if share is None else 100 * share,
                scale * mean.value,
                scale * (mean.half or 0.0),
                tuple(scale * float(value) for value in each.done[metric].dropna()),
                f"{each.arm}: {mean_text(metric, mean)} at sparsity {fraction(share)}",
            )
        )
    return made


def marks(placements: Sequence[str]) -> dict[str, str]:
    """A marker for each placement."""
    return {place: SHAPES[i % len(SHAPES)] for i, place in enumerate(dict.fromkeys(placements))}


def limits(points: Sequence[Point], metric: str) -> tuple[float, float]:
    """Where the metric's axis ends: every seed is seen, very wide intervals may run off.

    An axis in hundredths does not go on to where no share can be.

    Args:
        points: What is to be seen.
        metric: The metric.
    """
    values = [value for point in points for value in point.values]
    least, most = min(values), max(values)
    room = 0.6 * max(most - least, 0.5)
    low = max(least - room, min(p.mean - p.half for p in points))
    high = min(most + room, max(p.mean + p.half for p in points))
    if unit(metric) == 100:
        low, high = max(low, min(least, 0.0)), min(high, max(most, 100.0))
    pad = 0.06 * max(high - low, 0.5)
    return low - pad, high + pad


def crop(text: str, length: int = 26) -> str:
    """A label of printable letters that is not too long."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return plain if len(plain) <= length else f"{plain[: length - 1]}…"


def series(names: Sequence[str], colours: Palette) -> dict[str, str]:
    """A colour for each name; colours come again when there are more names than colours."""
    return {name: colours[SERIES[i % len(SERIES)]] for i, name in enumerate(dict.fromkeys(names))}


def spread_out(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Moves labels apart until each has room, as little as that needs.

    Args:
        places: Where each would stand.
        gap: The least distance between two.
        low: The lowest place.
        high: The highest place; given up if there are too many.

    >>> spread_out([1.0, 1.2, 5.0], 1.0, 0.0, 10.0)
    [0.6, 1.6, 5.0]
    """
    order = np.argsort(places, kind="stable")
    groups: list[tuple[float, int]] = []  # the middle and the number of labels that touch
    for place in np.asarray(places, dtype=float)[order]:
        groups.append((float(place), 1))
        while len(groups) > 1:
            (first, m), (second, n) = groups[-2:]
            if second - first >= gap * (m + n) / 2:
                break
            middle = (m * first + n * second) / (m + n)
            groups[-2:] = [(middle, m + n)]
    moved = np.concatenate([c + gap * (np.arange(n) - (n - 1) / 2) for c, n in groups])
    moved = np.maximum(moved, low + gap * np.arange(len(moved)))
    moved = np.minimum(moved, high - gap * np.arange(len(moved))[::-1])
    result = np.empty(len(moved))
    result[order] = moved
    return [round(float(value), 9) for value in result]


def new_figure(
    width: int, height: int, margins: tuple[int, int, int, int], colours: Palette
) -> tuple[Figure, Any]:
    """A figure with one plain set of axes.

    Args:
        width: In CSS pixels.
        height: Likewise.
        margins: Left, right, bottom and top, likewise.
        colours: The palette.
    """
    left, right, bottom, top = margins
    figure = Figure(figsize=(width / _DOTS_PER_INCH, height / _DOTS_PER_INCH), dpi=_DOTS_PER_INCH)
    axes = figure.add_axes(
        (
            left / width,
            bottom / height,
            (width - left - right) / width,
            (height - bottom - top) / height,
        )
    )
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(colours["quiet"])
    axes.tick_params(colors=colours["quiet"], labelsize=11)
    axes.xaxis.label.set_color(colours["ink"])
    axes.yaxis.label.set_color(colours["ink"])
    axes.set_axisbelow(True)
    return figure, axes


def legend(figure: Figure, entries: Sequence[tuple[str, str, str]], columns: int, ink: str) -> None:
    """A legend under the axes: label, colour and marker of each entry."""
    handles = [
        Line2D([], [], color=colour, marker=shape, linestyle="none", markersize=7, label=label)
        for label, colour, shape in entries
    ]
    figure.legend(
        handles=handles,
        loc="lower left",
        ncols=columns,
        frameon=False,
        labelcolor=ink,
        fontsize=11,
        handletextpad=0.3,
        columnspacing=1.2,
        borderaxespad=0.1,
    )
