"""The main table in the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from sparseattn.report.comparison import Comparison
from sparseattn.report.data import StudyData
from sparseattn.report.summary import ArmSummary, Summary, summarise
from sparseattn.report.text import duration, fraction, points, probability, spell
from sparseattn.study.statistics import Mean

__all__ = ["mean_text", "terminal_table"]


def terminal_table(study: StudyData | Summary) -> Table:
    """The arms of a study: main metric, change against the baseline, sparsity, time.

    Args:
        study: The study, or what `summarise` made of it.
    """
    summary = study if isinstance(study, Summary) else summarise(study)
    data = summary.data
    table = Table(title=Text(data.name), caption=_caption(summary), caption_justify="left")
    table.add_column("arm")
    table.add_column("layers")
    change = f"change against {data.baseline}"
    for name in (data.headline, change, "p", "detectable", "sparsity", "seconds"):
        table.add_column(Text(name), justify="right")
    for each in summary.arms:
        cells = (
            each.arm.name,
            each.arm.placement,
            mean_text(data.headline, each.metrics.get(data.headline)),
            *_change(each, data.headline),
            fraction(each.mean("sparsity")),
            duration(each.mean("seconds")),
        )
        table.add_row(*(Text(cell) for cell in cells))
    return table


def mean_text(metric: str, mean: Mean | None) -> str:
    """A mean with its interval, where there is one."""
    if mean is None or not mean.count:
        return "failed"
    text = spell(metric, mean.value)
    return text if mean.half is None else f"{text} ± {spell(metric, mean.half)}"


def _change(summary: ArmSummary, metric: str) -> tuple[str, str, str]:
    comparison = summary.comparison
    if not isinstance(comparison, Comparison):
        return "–", "–", "–"
    outcome = comparison.outcome
    return (
        points(metric, outcome.difference),
        probability(summary.p).removeprefix("= "),
        spell(metric, outcome.detectable),
    )


def _caption(summary: Summary) -> Text:
    data = summary.data
    lines = [f"Sparsity over {data.counted_over}; seconds a trial."]
    if any(each.metrics[data.headline].count > 1 for each in summary.arms if each.metrics):
        lines.append("± is the 95% interval of the mean over seeds.")
    if summary.comparisons:
        lines.append(
            f"p is corrected for {summary.comparisons} comparisons (Holm); detectable: the "
            "difference that would be found 4 times in 5."
        )
    if summary.hidden:
        lines.append(f"{summary.hidden:,} more arms are not shown.")
    return Text(" ".join(lines))
