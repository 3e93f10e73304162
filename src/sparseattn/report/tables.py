"""The report's tables, as text for the pages and as numbers for the downloads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from sparseattn.report.comparison import Comparison
from sparseattn.report.contrasts import Contrast, Question
from sparseattn.report.data import Arm, StudyData
from sparseattn.report.summary import ArmSummary, Summary
from sparseattn.report.text import (
    count,
    detectable,
    duration,
    fraction,
    interval,
    points,
    probability,
    spell,
)
from sparseattn.stats import Mean

__all__ = [
    "Column",
    "Table",
    "arms_frame",
    "arms_table",
    "contrasts_frame",
    "contrasts_table",
    "failures_table",
    "mean_text",
    "seeds_table",
]

#: Seeds with a column of their own, and failures with a row.
SEEDS, FAILURES = 12, 50


@dataclass(frozen=True)
class Column:
    """A column's heading.

    Attributes:
        label: The heading.
        number: Whether it holds numbers, to be set to the right.
        explain: What it means, if the heading does not say.
    """

    label: str
    number: bool = True
    explain: str = ""


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        columns: The headings.
        rows: The cells; the first of each row names it.
        left_out: Rows or columns that are not shown.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    left_out: int = 0


def mean_text(metric: str, mean: Mean | None) -> str:
    """A mean with its interval, where there is one."""
    if mean is None or not mean.count:
        return "failed"
    text = spell(metric, mean.value)
    return text if mean.half is None else f"{text} ± {spell(metric, mean.half)}"


def arms_table(summary: Summary) -> Table:
    """The main table: a row an arm."""
    data = summary.data
    inside = summary.has("layer_sparsity")
    columns = [
        Column("Arm", number=False),
        Column("Layers", number=False),
        Column(data.headline.capitalize() or "Metric", explain="mean ± 95%"),
        Column("Change", explain=f"against {data.baseline} (95%)"),
        Column("p", explain="Holm"),
        Column("Difference", number=False),
        Column("Sparsity"),
        *([Column("Layer sparsity")] if inside else []),
        Column("Block density"),
        Column("Mean degree"),
        Column("Time"),
        Column("Seeds"),
    ]
    rows = []
    for each in summary.arms:
        change, p, verdict = _change(each, data.headline)
        rows.append(
            (
                each.arm.name,
                each.arm.placement,
                mean_text(data.headline, each.metrics.get(data.headline)),
                change,
                p,
                verdict,
                fraction(each.mean("sparsity")),
                *([fraction(each.mean("layer_sparsity"))] if inside else []),
                fraction(each.mean("block_density")),
                count(each.mean("mean_degree")),
                duration(each.mean("seconds")),
                _seeds(each),
            )
        )
    return Table(tuple(columns), tuple(rows), summary.hidden)


def _change(each: ArmSummary, metric: str) -> tuple[str, str, str]:
    comparison = each.comparison
    if isinstance(comparison, str):
        return "–", "–", "not compared"
    if comparison is None:
        return "–", "–", "–"
    outcome = comparison.outcome
    verdict = each.verdict
    if verdict not in ("higher", "lower"):
        verdict = f"none found; {detectable(metric, outcome.detectable)}"
    change = f"{points(metric, outcome.difference)} ({interval(metric, outcome.low, outcome.high)})"
    return change, probability(each.p).removeprefix("= "), verdict


def contrasts_table(data: StudyData, found: Sequence[Contrast]) -> Table:
    """The comparisons of a question that the study declared."""
    columns = (
        Column("Arm", number=False),
        Column("Layers", number=False),
        Column("Against", number=False),
        Column("Layers", number=False),
        Column("Means"),
        Column("Difference", explain="95%"),
        Column("p", explain="Holm"),
        Column("Found", number=False),
    )
    return Table(columns, tuple(_contrast(data.headline, each) for each in found))


def _contrast(metric: str, each: Contrast) -> tuple[str, ...]:
    names = (each.a.name, each.a.placement, each.b.name, each.b.placement)
    if isinstance(each.comparison, str):
        return (*names, "–", "–", "–", each.comparison)
    outcome = each.comparison.outcome
    means = " : ".join(
        spell(metric, m.value) for m in (each.comparison.mean_a, each.comparison.mean_b)
    )
    change = f"{points(metric, outcome.difference)} ({interval(metric, outcome.low, outcome.high)})"
    found = each.verdict
    if found not in ("higher", "lower"):
        found = f"none; {detectable(metric, outcome.detectable)}"
    return (*names, means, change, probability(each.p).removeprefix("= "), found)


def contrasts_frame(found: Sequence[Question]) -> pd.DataFrame:
    """The comparisons of all questions as numbers: fractions, not percent."""
    records = []
    for question, each in [(one.text, each) for one in found for each in one.contrasts]:
        real = each.comparison if isinstance(each.comparison, Comparison) else None
        records.append(
            {
                "question": question,
                "a": each.a.address,
                "b": each.b.address,
                "mean_a": real.mean_a.value if real else None,
                "mean_b": real.mean_b.value if real else None,
                "difference": real.outcome.difference if real else None,
                "low": real.outcome.low if real else None,
                "high": real.outcome.high if real else None,
                "p": real.outcome.p if real else None,
                "p_holm": each.p,
                "detectable": real.outcome.detectable if real else None,
                "test": real.outcome.test if real else str(each.comparison),
            }
        )
    return pd.DataFrame(records)


def _seeds(each: ArmSummary) -> str:
    done, failed = len(each.done), each.failed
    return f"{done} of {done + failed}" if failed else f"{done}"


def arms_frame(summary: Summary) -> pd.DataFrame:
    """The main table as numbers: fractions, not percent."""
    metric = summary.data.headline
    records = []
    for each in summary.arms:
        mean = each.metrics.get(metric)
        outcome = each.comparison.outcome if isinstance(each.comparison, Comparison) else None
        records.append(
            {
                "arm": each.arm.name,
                "layers": each.arm.layers,
                "pattern": each.pattern,
                "metric": metric,
                "mean": mean.value if mean else math.nan,
                "low": mean.low if mean else None,
                "high": mean.high if mean else None,
                "seeds": len(each.done),
                "failed": each.failed,
                "change": outcome.difference if outcome else None,
                "change_low": outcome.low if outcome else None,
                "change_high": outcome.high if outcome else None,
                "p": outcome.p if outcome else None,
                "p_holm": each.p,
                "detectable": outcome.detectable if outcome else None,
                "test": outcome.test if outcome else "",
                **{c: each.mean(c) for c in _MEANS},
            }
        )
    return pd.DataFrame(records)


_MEANS = ("sparsity", "layer_sparsity", "block_density", "mean_degree", "seconds")


def seeds_table(each: ArmSummary) -> Table:
    """An arm's metrics: the mean, the spread and every seed."""
    shown = each.done.iloc[:SEEDS]
    columns = [
        Column("Metric", number=False),
        Column("Mean"),
        Column("SD", explain="over seeds"),
        *(Column(f"Seed {seed}") for seed in shown["seed"]),
    ]
    rows = [
        (
            metric,
            mean_text(metric, mean),
            spell(metric, mean.deviation),
            *(spell(metric, value) for value in shown[metric]),
        )
        for metric, mean in each.metrics.items()
        if mean.count
    ]
    return Table(tuple(columns), tuple(rows), len(each.done) - len(shown))


def failures_table(data: StudyData) -> Table:
    """The trials that failed, and why."""
    failed = data.failed
    labels = ("Arm", "Layers", "Seed", "Reason", "Trial")
    columns = tuple(Column(label, number=label == "Seed") for label in labels)
    fields = ["arm", "layers", "seed", "reason", "digest"]
    known = failed.reindex(columns=fields).iloc[:FAILURES].astype(object)
    rows = []
    for name, layers, *others in known.where(known.notna(), "").itertuples(index=False):
        arm = Arm(str(name), str(layers))
        rows.append((arm.name, arm.placement, *(_cell(value) for value in others)))
    return Table(columns, tuple(rows), max(0, len(failed) - FAILURES))


def _cell(value: object, length: int = 300) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= length else f"{text[: length - 1]}…"
