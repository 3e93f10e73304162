"""Comparisons as a forest plot: a row for each, with its interval and its seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from sparseattn.drawing import MANY, Drawing, new_figure
from sparseattn.palette import Page
from sparseattn.report.comparison import Comparison, Question
from sparseattn.report.data import StudyData
from sparseattn.report.summary import Summary
from sparseattn.report.text import interval, points, probability, unit
from sparseattn.stats import LEVEL
from sparseattn.study.arms import DENSE
from sparseattn.words import counted, one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Comparisons that are drawn.
_ROWS = 60

#: Inches: the width, the left and right end of the frame, where the columns of numbers end, the
#: height of a row, of a line of a heading, and of what is above and below the rows.
_WIDTH, _LEFT, _RIGHT, _COLUMNS = 7.6, 2.45, 4.95, (6.43, 7.0, 7.55)
_ROW, _LINE, _ABOVE, _BELOW = 0.32, 0.19, 0.3, 0.85

#: Letters of an arm's name, and of a line of a question.
_NAME, _HEADING = 38, 100


@dataclass(frozen=True)
class _Row:
    """A comparison in its place.

    Attributes:
        each: The comparison.
        top: Inches from the top of the frame to the row's middle.
        names: What is compared, a line or two.
        seeds: The difference of each seed that both arms have, as displayed.
    """

    each: Comparison
    top: float
    names: str
    seeds: tuple[float, ...]


def forest_figure(summary: Summary, asked: Sequence[Question]) -> Drawing | None:
    """Draws the comparisons that a study declared; without any those with the baseline.

    Returns:
        The drawing; None where nothing could be compared.
    """
    data = summary.data
    groups = [(each.text, list(each.comparisons)) for each in asked]
    by_question = any(each for _, each in groups)
    if not by_question:
        groups = [("", [each.comparison for each in summary.arms if each.comparison])]
    rows, headings, height = _placed(data, groups, by_question)
    if not rows:
        return None
    metric, left_out = data.headline, sum(len(each) for _, each in groups) - len(rows)

    def draw(page: Page) -> Figure:
        whole = height + _ABOVE + _BELOW
        figure = new_figure(_WIDTH, whole)
        figure.set_layout_engine("none")
        axes: Any = figure.add_axes(
            (_LEFT / _WIDTH, _BELOW / whole, (_RIGHT - _LEFT) / _WIDTH, height / whole)
        )
        axes.set_ylim(height, 0)
        axes.set_xlim(*_limits(rows, metric))
        axes.axvline(0, color=page.ink, linewidth=1)
        axes.grid(axis="x")
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        scale = " (points)" if unit(metric) == 100 else ""
        axes.set_xlabel(f"{one_line(metric, 26)}: difference{scale}")
        _write_headings(axes, headings, page)
        for row in rows:
            _draw_row(axes, row, page)
        _legend(figure, rows, page)
        return figure

    what = "the declared comparisons" if by_question else f"comparisons with {DENSE}"
    more = f" {counted(left_out, 'more comparison')} are not drawn." if left_out else ""
    place, results = _placement(groups), [row.each.result for row in rows]
    barless = any(math.isnan(result.low) for result in results)
    counts = " Without a bar p is that of how many runs learned the task." if barless else ""
    placement = f" Layers: {place}." if place else ""
    points_of = " in points" if unit(metric) == 100 else ""
    return Drawing(
        name="forest",
        title=f"{metric}, {what}",
        description="; ".join(_words(groups, len(rows))) + ".",
        caption=f"The difference of each pair{points_of}, the first arm less the "
        f"{'second' if by_question else 'baseline'}. The bar is its 95% interval, cut at the "
        "frame; small dots are the seeds that both arms have. Where none was found, the arms may "
        "differ all the same. p is corrected after Holm for the comparisons of a "
        f"{'question' if by_question else 'table'}, q is Benjamini and Hochberg's over the page."
        f"{counts}{placement}{more}",
        draw=draw,
    )


def _placed(
    data: StudyData, groups: Sequence[tuple[str, list[Comparison]]], by_question: bool
) -> tuple[list[_Row], list[tuple[float, str]], float]:
    """Rows and headings with their places, and the height of all; inches."""
    rows: list[_Row] = []
    headings: list[tuple[float, str]] = []
    said = str if _placement(groups) is None else lambda arm: arm.name
    at = 0.0
    for heading, comparisons in groups:
        shown = comparisons[: _ROWS - len(rows)]
        if not shown:
            continue
        lines = wrap(one_line(heading, 3 * _HEADING), _HEADING)
        if lines:
            headings.append((at, "\n".join(lines)))
            at += _LINE * len(lines)
        for each in shown:
            names = one_line(said(each.a), _NAME)
            names += f"\nagainst {one_line(said(each.b), _NAME - 8)}" if by_question else ""
            rows.append(_Row(each, at + _ROW / 2, names, _seeds(data, each)))
            at += _ROW
        at += 0.1
    return rows, headings, at


def _placement(groups: Sequence[tuple[str, list[Comparison]]]) -> str | None:
    """The layers of all arms, where they are the same; arms without layers do not count."""
    arms = [arm for _, comparisons in groups for each in comparisons for arm in (each.a, each.b)]
    places = {arm.placement for arm in arms if arm.layers}
    return places.pop() if len(places) == 1 else None


def _seeds(data: StudyData, each: Comparison) -> tuple[float, ...]:
    """The difference of each seed that both arms have."""
    a, b = (data.done_in(arm).set_index("seed")[data.headline] for arm in (each.a, each.b))
    found = unit(data.headline) * (a - b).dropna()
    return tuple(float(value) for value in found)


def _limits(rows: Sequence[_Row], metric: str) -> tuple[float, float]:
    """Where the axis ends: every seed and mean is seen, wide intervals are cut."""
    scale = unit(metric)
    results = [row.each.result for row in rows]
    values = [0.0, *(scale * each.difference for each in results)]
    values += [seed for row in rows for seed in row.seeds]
    least, most = min(values), max(values)
    room = 0.5 * max(most - least, 0.01 * scale)
    ends = [scale * end for each in results for end in (each.low, each.high) if not math.isnan(end)]
    low, high = max(least - room, min([least, *ends])), min(most + room, max([most, *ends]))
    pad = max(0.05 * (high - low), 0.1 * room)
    return low - pad, high + pad


def _look(row: _Row, page: Page) -> dict[str, Any]:
    """Colour and shape say whether a difference was found, the filling when it was asked."""
    colour = page.series[0] if row.each.differs else page.quiet
    return {
        "color": colour,
        "marker": "D" if row.each.differs else "o",
        "markersize": 5,
        "markerfacecolor": colour if row.each.declared else page.page,
        "linestyle": "none",
    }


def _draw_row(axes: Any, row: _Row, page: Page) -> None:
    result, metric = row.each.result, row.each.metric
    scale, look = unit(metric), _look(row, page)
    if not math.isnan(result.low):
        ends = [scale * result.low, scale * result.high]
        axes.plot(ends, [row.top] * 2, color=look["color"], linewidth=1.4)
    seeds = [row.top + 0.09] * len(row.seeds)
    dots = {"color": look["color"], "markersize": 4, "alpha": 0.7}
    axes.plot(row.seeds, seeds, ".", **dots, rasterized=len(seeds) > MANY)
    axes.plot([scale * result.difference], [row.top], **look)
    weight = "bold" if row.each.differs else "normal"
    _text(axes, _LEFT - 0.12, row.top, row.names, page.ink, ha="right", linespacing=1.05)
    for end, words in zip(_COLUMNS, _numbers(row.each), strict=True):
        _text(axes, end, row.top, words, page.ink, ha="right", fontweight=weight)


def _numbers(each: Comparison) -> tuple[str, str, str]:
    """The difference with its interval, p and q."""
    result = each.result
    change = points(each.metric, result.difference)
    if not math.isnan(result.low):
        change += f" ({interval(each.metric, result.low, result.high)})"
    p, q = (probability(value).removeprefix("= ") for value in (each.p, each.q))
    return change, p, q


def _text(axes: Any, across: float, down: float, words: str, colour: str, **how: Any) -> None:
    """Text at so many inches from the left edge of the figure and from the top of the frame."""
    place = (across - _LEFT) / (_RIGHT - _LEFT)
    options = {"fontsize": 7.5, "va": "center", "color": colour, "clip_on": False} | how
    axes.text(place, down, words, transform=axes.get_yaxis_transform(), **options)


def _write_headings(axes: Any, headings: Sequence[tuple[float, str]], page: Page) -> None:
    for end, words in zip(_COLUMNS, ("difference (95% interval)", "p", "q"), strict=True):
        _text(axes, end, -0.14, words, page.quiet, ha="right")
    for top, words in headings:
        _text(axes, 0.08, top + 0.04, words, page.ink, va="top", fontweight="bold")


def _legend(figure: Figure, rows: Sequence[_Row], page: Page) -> None:
    """What the marks that are there mean."""
    from matplotlib.lines import Line2D

    handles, known = [], set[tuple[bool, bool]]()
    for row in rows:
        key = row.each.differs, row.each.declared
        if key not in known:
            known.add(key)
            found = "a difference was found" if row.each.differs else "none was found"
            label = f"{found}, {row.each.asked}"
            handles.append(Line2D([], [], label=label, **_look(row, page)))
    seed = Line2D([], [], label="a seed", color=page.quiet, marker=".", linestyle="none")
    seed.set_markersize(4)
    handles.append(seed)
    figure.legend(
        handles=handles, loc="lower center", ncols=len(handles), fontsize=7.5, handletextpad=0.2
    )


def _words(groups: Sequence[tuple[str, list[Comparison]]], shown: int) -> Iterator[str]:
    """Each comparison that is drawn, in words and numbers."""
    every = [(heading, each) for heading, comparisons in groups for each in comparisons]
    for heading, each in every[:shown]:
        change, p, q = _numbers(each)
        found = f"a difference was found (p below {LEVEL:g})" if each.differs else "none was found"
        start = f"{heading} " if heading else ""
        yield f"{start}{each.a} against {each.b}: {change}, p {p}, q {q}, {each.asked}, {found}"
