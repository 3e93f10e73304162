"""The report's tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from sparseattn.report.comparison import Question, questions
from sparseattn.report.data import StudyData
from sparseattn.report.findings import learned_nothing
from sparseattn.report.summary import Summary, summarise
from sparseattn.report.tables import Table, arms_table, comparisons_table
from sparseattn.report.text import COUNTED_OVER, NONE, TWO_SEEDS, scale
from sparseattn.words import counted

#: What a terminal has at least.
_COLUMNS = 80


def terminal_table(study: StudyData | Summary) -> RichTable:
    """The arms of a study: main metric, change against the baseline, sparsity, time."""
    summary = study if isinstance(study, Summary) else summarise(study)
    data = summary.data
    lines = [
        scale(data.headline),
        f"Sparsity is over {COUNTED_OVER}; layer sparsity over the sparse layers alone.",
    ]
    if any(count > 2 for count in summary.seeds):
        lines.append("± is the 95% interval of the mean over seeds.")
    if 2 in summary.seeds:
        lines.append(TWO_SEEDS)
    if summary.comparisons:
        lines.append(
            f"Found: p < 0.05 after Holm's correction for {summary.comparisons} comparisons; "
            "the report has p, intervals and the smallest detectable difference."
        )
    if unmade := sum(bool(each.reason) for each in summary.arms):
        lines.append(f"{counted(unmade, 'arm')} could not be compared; the report says why.")
    lines.append(learned_nothing(data))
    if summary.hidden:
        lines.append(f"{summary.hidden:,} more arms are not shown.")
    return _rich(data.name, arms_table(summary).brief, lines)


def questions_terminal(data: StudyData) -> Group:
    """The comparisons that a study declared, a table for each question."""
    # Each table but the last is followed by an empty line.
    tables = [(_question(data, each), "") for each in questions(data)]
    return Group(*[part for pair in tables for part in pair][:-1])


def _question(data: StudyData, question: Question) -> RichTable:
    table, number = comparisons_table(question.comparisons).brief, len(question.comparisons)
    corrected = f"p is corrected for the {number} comparisons of this table (Holm)."
    lines = ["No comparison could be made."]
    if number:
        lines = [scale(data.headline), corrected if number > 1 else "p is that of one comparison."]
    # Eighty columns have no room for a column of what is detectable.
    *_, found, detectable = range(len(table.columns))
    rows = tuple(
        (
            *row[:found],
            f"{row[found]} ({row[detectable]})" if row[detectable] != NONE else row[found],
        )
        for row in table.rows
    )
    if rows != tuple(row[:detectable] for row in table.rows):
        lines.append("In brackets: the smallest true difference that 80% of such studies find.")
    if late := [f"{each.a} with {each.b}" for each in question.comparisons if not each.declared]:
        lines.append(f"Post hoc, added when a trial had been run: {'; '.join(late)}.")
    caveats = {each.result.caveat for each in question.comparisons} - {""}
    lines += [f"{note[0].upper()}{note[1:]}." for note in [*question.notes, *sorted(caveats)]]
    return _rich(question.text or data.name, Table(table.columns[:detectable], rows), lines)


def _rich(title: str, table: Table, caption: Sequence[str]) -> RichTable:
    widths = [_narrowest(table, at) for at in range(len(table.columns))]
    room = _COLUMNS - sum(widths) - (len(widths) - 1)
    padding = int(room >= len(widths))
    widths[0] = max(8, widths[0] + min(0, room))
    made = RichTable(
        title=Text(title),
        title_justify="left",
        caption=Text(" ".join(filter(None, dict.fromkeys(caption)))),
        caption_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, padding, 0, 0),
    )
    for column, width in zip(table.columns, widths, strict=True):
        # Names wrap where they must; of headings that may, rich leaves columns too wide.
        label = column.label.replace(" ", "\n")
        side: Literal["left", "right"] = "right" if column.number else "left"
        made.add_column(
            Text(label), justify=side, min_width=width, overflow="fold", no_wrap=column.number
        )
    for row in table.rows:
        made.add_row(*map(Text, row))
    return made


def _narrowest(table: Table, at: int) -> int:
    """How wide a column must be: a heading or a long name may break, between words."""
    column, cells = table.columns[at], [row[at] for row in table.rows]
    words = column.label.split()
    words += [cell for cell in cells if column.number or len(cell) <= 10]
    words += [word for cell in cells for word in cell.split() if len(word) <= 24]
    return max(map(len, words))
