"""A study's arms: the mean of each, and its comparison with the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from sparseattn.report.comparison import (
    SHOWN,
    Comparison,
    Question,
    baseline_pairs,
    compare_pairs,
    declared_pairs,
    over_page,
)
from sparseattn.report.data import StudyData
from sparseattn.stats import LearnedRuns, Mean, mean_interval
from sparseattn.study.arms import DENSE, ArmKey


@dataclass(frozen=True)
class ArmSummary:
    """An arm's trials in one row.

    Attributes:
        arm: The arm.
        rows: Its trials, failed ones included.
        metrics: The mean of each metric over the seeds.
        comparison: Its comparison with the baseline; None for the baseline itself, and where there
            is none.
        learned: Its runs that learned the task; None where runs have one mode.
        reason: Why its finished trials could not be compared with the baseline; else empty.
    """

    arm: ArmKey
    rows: pd.DataFrame
    metrics: Mapping[str, Mean]
    comparison: Comparison | None = None
    learned: LearnedRuns | None = None
    reason: str = ""

    @cached_property
    def done(self) -> pd.DataFrame:
        """Its finished trials."""
        return self.rows[self.rows["status"] == "done"]

    @property
    def failed(self) -> int:
        """How many of its trials failed."""
        return int((self.rows["status"] == "failed").sum())

    @property
    def pattern(self) -> str:
        """Its pattern, if the table names it."""
        known = self.rows.get("pattern", pd.Series(dtype=object)).dropna()
        return str(known.iloc[0]) if len(known) else ""

    def mean(self, column: str) -> float | None:
        """The mean of any numeric column over its finished trials; None if unknown."""
        if column not in self.done or self.done[column].isna().all():
            return None
        return float(self.done[column].mean())


@dataclass(frozen=True)
class Summary:
    """A study's arms.

    Attributes:
        data: The study.
        arms: Those that are shown, in the study's order, the baseline first.
        hidden: How many more there are.
    """

    data: StudyData
    arms: tuple[ArmSummary, ...]
    hidden: int

    @property
    def comparisons(self) -> int:
        """How many comparisons the correction covers."""
        return sum(each.comparison is not None for each in self.arms)

    @property
    def seeds(self) -> set[int]:
        """How many seeds an arm has, over the arms that have the main metric."""
        main = [each.metrics.get(self.data.headline) for each in self.arms]
        return {mean.count for mean in main if mean}


def summarise(data: StudyData, shown: int = SHOWN) -> Summary:
    """Summarises the first arms of a study and compares them with its baseline.

    Args:
        data: The study.
        shown: How many arms.
    """
    arms = list(data.groups)[:shown]
    before = declared_pairs(data)
    compared, reasons = compare_pairs(data, baseline_pairs(data, shown), f"with {DENSE}")
    against = {
        a: replace(c, declared=frozenset((a, b)) in before) for (a, b), c in compared.items()
    }
    why = {arm: reason for (arm, _), reason in reasons.items()}
    made = []
    for arm in arms:
        rows = data.done_in(arm)
        means = {name: mean_interval(rows[name]) for name in data.metrics if name in rows}
        learned = None
        if data.threshold is not None and len(rows):
            learned = LearnedRuns.among(rows[data.headline].to_numpy(float), data.threshold)
        made.append(
            ArmSummary(arm, data.groups[arm], means, against.get(arm), learned, why.get(arm, ""))
        )
    return Summary(data, tuple(made), len(data.groups) - len(arms))


def over_summary(summary: Summary, asked: Sequence[Question]) -> tuple[Summary, list[Question]]:
    """The same with the q-values over all comparisons of a page."""
    base = [each.comparison for each in summary.arms if each.comparison]
    base_table, *tables = over_page([base, *(each.comparisons for each in asked)])
    found = iter(base_table)
    arms = tuple(
        replace(each, comparison=next(found)) if each.comparison else each for each in summary.arms
    )
    answered = [replace(q, comparisons=t) for q, t in zip(asked, tables, strict=True)]
    return replace(summary, arms=arms), answered
