"""The pictures of commands and reports, as matplotlib figures.

>>> import sparseattn as sa
>>> shown = sa.picture("neighbor(radius=1) | global(cls)", "A cat sat.")  # doctest: +SKIP
>>> figure = sa.plots.mask(shown)  # doctest: +SKIP

A colour and a mark stand for a kind of connection in all of them (`sparseattn.palette`). They are
for a light page; `dark=True` draws for a dark one. All need matplotlib
(`pip install "sparseattn[study]"`) and raise a MissingExtraError without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparseattn.palette import DARK, LIGHT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sparseattn.degrees.probe import ProbeResult
    from sparseattn.degrees.result import Learned
    from sparseattn.drawing import Drawing
    from sparseattn.report.data import StudyData
    from sparseattn.report.summary import Summary
    from sparseattn.show import Picture


def mask(shown: Picture, *, dark: bool = False) -> Figure:
    """Which tokens of a text a pattern, or a head of a plan, connects: `sparseattn show --png`.

    Args:
        shown: What `sparseattn.picture` returns.
        dark: Whether it is for a dark page.

    Returns:
        A row a query, a column a key: [tokens, tokens] squares.
    """
    return _figure(shown.drawing, dark)


def heads(probed: ProbeResult, *, dark: bool = False) -> Figure:
    """How much attention each head puts on a pattern's pairs: `sparseattn probe --png`.

    Args:
        probed: What `sparseattn.probe` returns; mass of shape [layers, heads], in [0, 1].
        dark: Whether it is for a dark page.

    Returns:
        A square a head, with its mass in percent; on the right that of uniform attention.
    """
    return _figure(probed.drawing, dark)


def degrees(learned: Learned, *, dark: bool = False) -> Figure:
    """What each head keeps, and how the search went: the `degrees.png` of `sparseattn learn`.

    Args:
        learned: What `sparseattn.learn_degrees` returns; degrees of shape [learned layers, heads,
            kinds].
        dark: Whether it is for a dark page.

    Returns:
        Heads across, layers down, a mark for each kind of connection; sparsity and loss below.
    """
    return _figure(learned.drawing, dark)


def frontier(
    study: str | Path | StudyData | Summary | Sequence[Learned], *, dark: bool = False
) -> Figure:
    """The main metric against sparsity, with seeds and 95% intervals: `sparseattn study report`.

    Args:
        study: A study's folder, or what `sparseattn.report` made of it; or what was learned for
            several targets, as in the `frontier.png` of `sparseattn learn`.
        dark: Whether it is for a dark page.

    Returns:
        A mark for each arm: sparsity across (%), the metric up (%, but for losses and errors).

    Raises:
        StudyError: It is no study's folder, or no arm has both a metric and a sparsity.
    """
    from sparseattn.errors import StudyError
    from sparseattn.report.figures import learned_figure, sparsity_figure

    if isinstance(study, Sequence) and not isinstance(study, str):
        from sparseattn.degrees.result import frontier_rows

        return _figure(learned_figure(frontier_rows(study)), dark)
    drawing = sparsity_figure(_summary(study))
    if drawing is None:
        raise StudyError("no arm of the study has both a metric and a sparsity")
    return _figure(drawing, dark)


def forest(study: str | Path | StudyData | Summary, *, dark: bool = False) -> Figure:
    """The declared contrasts of a study, or each arm against the baseline if it has none.

    Args:
        study: A study's folder, or what `sparseattn.report` made of it.
        dark: Whether it is for a dark page.

    Returns:
        A row for each comparison, grouped by question: the difference in points with its 95%
        interval, the seeds as dots, p after Holm and q after Benjamini and Hochberg.

    Raises:
        StudyError: It is no study's folder, or no two arms could be compared.
    """
    from sparseattn.errors import StudyError
    from sparseattn.report.comparison import questions
    from sparseattn.report.forest import forest_figure
    from sparseattn.report.summary import over_summary

    summary = _summary(study)
    drawing = forest_figure(*over_summary(summary, questions(summary.data)))
    if drawing is None:
        raise StudyError("no two arms of the study could be compared")
    return _figure(drawing, dark)


def _summary(study: str | Path | StudyData | Summary) -> Summary:
    from sparseattn.report import load_study, summarise
    from sparseattn.report.summary import Summary

    if isinstance(study, Summary):
        return study
    return summarise(load_study(study) if isinstance(study, str | Path) else study)


def _figure(drawing: Drawing, dark: bool) -> Figure:
    return drawing.figure(DARK if dark else LIGHT)
