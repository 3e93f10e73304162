"""The main table in the terminal."""

from __future__ import annotations

from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from sparseattn.report.comparison import Comparison
from sparseattn.report.contrasts import Contrast, Question, questions
from sparseattn.report.data import StudyData
from sparseattn.report.summary import ArmSummary, Summary, summarise
from sparseattn.report.tables import contrasts_table, mean_text
from sparseattn.report.text import fraction, points, smallest

__all__ = ["contrasts_terminal", "terminal_table"]


def terminal_table(study: StudyData | Summary) -> Table:
    """The arms of a study: main metric, change against the baseline, sparsity, time.

    Args:
        study: The study, or what `summarise` made of it.
    """
    summary = study if isinstance(study, Summary) else summarise(study)
    data = summary.data
    table = Table(
        title=Text(data.name),
        caption=_caption(summary),
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1),
    )
    inside = ["of its layers"] if summary.has("layer_sparsity") else []
    names = ("arm", "layers", data.headline, f"against {data.baseline}", "sparsity", *inside)
    for name in (*names, "seconds"):
        # A heading may break between words; neither it nor a name may lose its end.
        longest = max(map(len, name.split()))
        justify: Literal["left", "right"] = "left" if name in names[:2] else "right"
        table.add_column(Text(name), justify=justify, min_width=longest, overflow="fold")
    for each in summary.arms:
        shares = ["sparsity", *(["layer_sparsity"] if inside else [])]
        cells = (
            each.arm.name,
            each.arm.placement,
            mean_text(data.headline, each.metrics.get(data.headline)),
            _change(each, data.headline),
            *(fraction(each.mean(name)) for name in shares),
            _seconds(each.mean("seconds")),
        )
        table.add_row(*(Text(cell) for cell in cells))
    return table


def contrasts_terminal(data: StudyData) -> Group:
    """The comparisons that a study declared, a table a question.

    Args:
        data: The study.
    """
    # Each table but the last is followed by an empty line.
    tables = [(_question(data, each), "") for each in questions(data)]
    return Group(*[part for pair in tables for part in pair][:-1])


def _question(data: StudyData, question: Question) -> Table:
    spelled = contrasts_table(data, question.contrasts)
    placements = {row[at] for row in spelled.rows for at in (1, 3)}
    lines = [
        *([f"Layers: {placements.pop()}."] if len(placements) == 1 else []),
        f"Means and differences in hundredths, 95% intervals; p {_corrected(question)}."
        if question.contrasts
        else "No comparison could be made.",
        *(f"{note}." for note in dict.fromkeys(question.notes)),
    ]
    lines += [f"{caveat[0].upper()}{caveat[1:]}." for caveat in sorted(_caveats(question))]
    if any(_size(each, data.headline) for each in question.contrasts):
        lines.append("In brackets: the smallest difference found four times in five.")
    table = Table(
        title=Text(question.text or data.name),
        title_justify="left",
        caption=Text(" ".join(lines)),
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1),
    )
    for at, column in enumerate(spelled.columns):
        if at in (1, 3):
            continue
        side: Literal["left", "right"] = "right" if column.number else "left"
        longest = max(map(len, column.label.split()))
        table.add_column(Text(column.label), justify=side, min_width=longest, overflow="fold")
    for each, row in zip(question.contrasts, spelled.rows, strict=True):
        arm, layers, other, theirs, means, change, p, found = row
        pair = [f"{name}\n{where}" if placements else name
                for name, where in ((arm, layers), (other, theirs))]  # fmt: skip
        size = _size(each, data.headline)
        table.add_row(*map(Text, (*pair, means, change, p, f"none ({size})" if size else found)))
    return table


def _caveats(question: Question) -> set[str]:
    """What the tests of a question do not cover."""
    made = [each.comparison for each in question.contrasts]
    return {each.outcome.caveat for each in made if isinstance(each, Comparison)} - {""}


def _corrected(question: Question) -> str:
    count = len(question.contrasts)
    if count == 1:
        return "is that of one comparison"
    return f"is corrected for the {count} comparisons of this table (Holm)"


def _size(each: Contrast, metric: str) -> str:
    """The size from which a difference that was not found would have been; else nothing."""
    if not isinstance(each.comparison, Comparison) or each.verdict in ("higher", "lower"):
        return ""
    return smallest(metric, each.comparison.outcome.detectable) or "too few runs"


def _change(summary: ArmSummary, metric: str) -> str:
    """The change in points, with a star where it is more than chance."""
    comparison = summary.comparison
    if not isinstance(comparison, Comparison):
        return "–"
    star = " *" if summary.verdict in ("lower", "higher") else "  "
    return points(metric, comparison.outcome.difference) + star


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}" if value < 10 else f"{value:,.0f}"


def _caption(summary: Summary) -> Text:
    data = summary.data
    lines = [
        f"{data.headline.capitalize()} and changes in hundredths; sparsity over "
        f"{data.counted_over}, and over those layers alone that carry the pattern; seconds a trial."
    ]
    if any(each.metrics[data.headline].count > 1 for each in summary.arms if each.metrics):
        lines.append("± is the 95% interval of the mean over seeds.")
    if summary.comparisons:
        lines.append(
            f"* p < 0.05, corrected for {summary.comparisons} comparisons (Holm); the report has "
            "p, intervals and the smallest difference that could have been found."
        )
    if summary.hidden:
        lines.append(f"{summary.hidden:,} more arms are not shown.")
    return Text(" ".join(lines))
