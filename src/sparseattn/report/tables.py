"""The report's tables: as text for pages and terminal, as numbers for files."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sparseattn.report.comparison import Comparison, Question
from sparseattn.report.data import StudyData
from sparseattn.report.summary import ArmSummary, Summary
from sparseattn.report.text import (
    NONE,
    count,
    fraction,
    interval,
    learned,
    points,
    probability,
    spell,
)
from sparseattn.stats import Mean, mean_interval
from sparseattn.study.arms import DENSE, ArmKey
from sparseattn.words import duration, one_line

#: Seeds with a column of their own, and failures with a row.
SEEDS, FAILURES = 12, 50

#: Columns of which a table of numbers has an arm's mean.
_MEANS = ("sparsity", "layer_sparsity", "block_density", "mean_degree", "seconds")


@dataclass(frozen=True)
class Column:
    """A column's heading.

    Attributes:
        label: The heading.
        number: Whether it holds numbers, which stand on the right.
        explain: What it is counted over, if the heading does not say.
        brief: Whether a terminal shows it.
    """

    label: str
    number: bool = True
    explain: str = ""
    brief: bool = True


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

    @property
    def brief(self) -> Table:
        """The same with the columns that a terminal shows."""
        return self.without({column.label for column in self.columns if not column.brief})

    def without(self, labels: Collection[str]) -> Table:
        """The same without some columns."""
        shown = [at for at, column in enumerate(self.columns) if column.label not in labels]
        columns = tuple(self.columns[at] for at in shown)
        rows = tuple(tuple(row[at] for at in shown) for row in self.rows)
        return Table(columns, rows, self.left_out)


def mean_text(metric: str, mean: Mean | None) -> str:
    """A mean with its interval, or with both values where there are two."""
    if mean is None or not mean.count:
        return "failed"
    text = spell(metric, mean.value)
    if mean.telling:
        return f"{text} ± {spell(metric, mean.half)}"
    both = ", ".join(spell(metric, value) for value in mean.values)
    return f"{text} ({both})" if both else text


def _over_seeds(means: Iterable[Mean | None]) -> str:
    """What a column of means says in its heading."""
    return "mean over seeds ± 95%" if any(m and m.telling for m in means) else "mean over seeds"


def arms_table(summary: Summary) -> Table:
    """The main table: a row for each arm."""
    data = summary.data
    headlines = [each.metrics.get(data.headline) for each in summary.arms]
    columns = [
        Column("Arm", number=False),
        Column("Layers", number=False),
        Column(data.headline.capitalize() or "Metric", explain=_over_seeds(headlines)),
        Column("Learned it", explain="runs, their mean"),
        Column("Change", explain=f"against {DENSE}"),
        Column("95% interval", explain="of the change", brief=False),
        Column("p", explain="Holm", brief=False),
        Column("q", explain="BH", brief=False),
        Column("Found", number=False),
        Column("Detectable", explain="where none found", brief=False),
        Column("Sparsity", explain="all layers"),
        Column("Layer sparsity", explain="sparse layers"),
        Column("Block density", explain="scores computed", brief=False),
        Column("Mean degree", explain="keys a query", brief=False),
        Column("Time", explain="of a trial"),
        Column("Seeds", explain="finished", brief=False),
    ]
    rows = []
    for each in summary.arms:
        done, failed, seconds = len(each.done), each.failed, each.mean("seconds")
        rows.append(
            (
                each.arm.name,
                each.arm.placement,
                headline_text(data.headline, each),
                learned(data.headline, each.learned) if each.learned else NONE,
                *_comparison(each.comparison)[:-1],
                fraction(each.mean("sparsity")),
                fraction(each.mean("layer_sparsity")),
                fraction(each.mean("block_density")),
                count(each.mean("mean_degree")),
                NONE if seconds is None else duration(seconds),
                f"{done} of {done + failed}" if failed else f"{done}",
            )
        )
    absent = set() if data.threshold is not None else {"Learned it"}
    if all(each.mean("layer_sparsity") is None for each in summary.arms):
        absent.add("Layer sparsity")
    return Table(tuple(columns), tuple(rows), summary.hidden).without(absent)


def headline_text(metric: str, each: ArmSummary) -> str:
    """An arm's mean, with its interval where its runs have one mode."""
    mean = each.metrics.get(metric)
    if mean and each.learned and 0 < each.learned.runs < each.learned.of:
        return spell(metric, mean.value)
    return mean_text(metric, mean)


def _comparison(each: Comparison | None) -> tuple[str, ...]:
    """The difference, its interval, p, q, the verdict, what was detectable, when it was asked."""
    if each is None:
        return (NONE,) * 7
    result = each.result
    return (
        points(each.metric, result.difference),
        interval(each.metric, result.low, result.high),
        probability(each.p).removeprefix("= "),
        probability(each.q).removeprefix("= "),
        each.verdict,
        each.detectable or NONE,
        each.asked,
    )


def _means(each: Comparison) -> list[str]:
    """The mean of either arm; with its seeds where the two have not as many."""
    same = len({mean.count for mean in each.means}) == 1
    return [
        f"{spell(each.metric, mean.value)}{'' if same else f' (of {mean.count})'}"
        for mean in each.means
    ]


def comparisons_table(comparisons: Sequence[Comparison]) -> Table:
    """The comparisons that answer a question."""
    columns = (
        Column("Arm", number=False),
        Column("Against", number=False),
        Column("Means", explain="over seeds"),
        Column("Learned it", explain="runs, their mean"),
        Column("Change"),
        Column("95% interval", explain="of the change"),
        Column("p", explain="Holm"),
        Column("q", explain="BH", brief=False),
        Column("Found", number=False),
        Column("Detectable", explain="where none found"),
        Column("Asked", number=False, brief=False),
    )
    rows = []
    for each in comparisons:
        means = " : ".join(_means(each))
        runs = " : ".join(learned(each.metric, of) for of in each.learned or ()) or NONE
        rows.append((str(each.a), str(each.b), means, runs, *_comparison(each)))
    absent = set() if any(each.learned for each in comparisons) else {"Learned it"}
    return Table(columns, tuple(rows)).without(absent)


def seeds_table(each: ArmSummary) -> Table:
    """An arm's metrics: the mean, the standard deviation and every seed.

    Of learned degrees also the headline after the search phase, and when they were made discrete.
    """
    shown = each.done.iloc[:SEEDS]
    columns = (
        Column("Metric", number=False),
        Column("Mean", explain=_over_seeds(each.metrics.values()).removeprefix("mean ")),
        Column("SD", explain="over seeds"),
        *(Column(f"Seed {seed}") for seed in shown["seed"]),
    )
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
    rows += [
        (f"{metric}, {when}", mean_text(metric, mean), spell(metric, mean.deviation), *values)
        for metric, when, mean, values in _phases(each, shown)
    ]
    return Table(columns, tuple(rows), len(each.done) - len(shown))


def _phases(
    each: ArmSummary, shown: pd.DataFrame
) -> Iterator[tuple[str, str, Mean, tuple[str, ...]]]:
    """The headline of learned degrees before the fine-tune, where it was measured."""
    for phase, when in (("search", "after the search"), ("discretized", "discretized")):
        column = f"headline_{phase}"
        if column in each.done and each.done[column].notna().any():
            metric = str(each.done["headline"].iloc[0])
            values = tuple(spell(metric, value) for value in shown[column])
            yield metric, when, mean_interval(each.done[column]), values


def failures_table(data: StudyData) -> Table:
    """The trials that failed, and why."""
    labels = ("Arm", "Layers", "Seed", "Reason", "Trial")
    columns = tuple(Column(label, number=label == "Seed") for label in labels)
    fields = ["arm", "layers", "seed", "reason", "digest"]
    known = data.failed.reindex(columns=fields).iloc[:FAILURES].astype(object)
    rows = []
    for name, layers, *others in known.where(known.notna(), "").itertuples(index=False):
        arm = ArmKey(str(name), str(layers))
        rows.append((arm.name, arm.placement, *(one_line(value, 300) for value in others)))
    return Table(columns, tuple(rows), max(0, len(data.failed) - FAILURES))


def arms_frame(summary: Summary) -> pd.DataFrame:
    """The main table as numbers: fractions, not percent."""
    metric = summary.data.headline
    records = []
    for each in summary.arms:
        mean = each.metrics.get(metric) or Mean(math.nan, None, None, 0)
        records.append(
            {
                "arm": each.arm.name,
                "layers": each.arm.layers,
                "pattern": each.pattern,
                "metric": metric,
                "mean": mean.value,
                "mean_low": mean.low,
                "mean_high": mean.high,
                "seeds": len(each.done),
                "failed": each.failed,
                "learned": each.learned.runs if each.learned else None,
                "mean_learned": each.learned.mean if each.learned else None,
                **_numbers(each.comparison, each.reason),
                **{column: each.mean(column) for column in _MEANS},
            }
        )
    return pd.DataFrame(records)


def comparisons_frame(questions: Sequence[Question]) -> pd.DataFrame:
    """The comparisons of all questions as numbers: fractions, not percent."""
    records = []
    for question, each in [(one, each) for one in questions for each in one.comparisons]:
        mean_a, mean_b = (mean.value for mean in each.means)
        arms = {"question": question.text, "a": each.a.address, "b": each.b.address}
        records.append({**arms, "mean_a": mean_a, "mean_b": mean_b, **_numbers(each)})
    return pd.DataFrame(records)


def _numbers(each: Comparison | None, reason: str = "") -> dict[str, Any]:
    names = ("difference", "low", "high", "p", "detectable")
    if each is None:
        return {**dict.fromkeys((*names, "p_holm", "q", "asked")), "test": reason}
    numbers = {name: getattr(each.result, name) for name in names}
    found = {"p_holm": each.p, "q": each.q, "asked": each.asked}
    return {**numbers, **found, "test": each.result.test}
