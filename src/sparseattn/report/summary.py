"""A study's arms, each in one row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from sparseattn.report.comparison import Comparison, compare_all
from sparseattn.report.data import Arm, StudyData
from sparseattn.stats import LEVEL, Mean, holm, mean_interval

__all__ = ["ArmSummary", "Summary", "summarise"]

#: Arms that tables and figures show; what is left out is counted, and is in the results file.
SHOWN = 60


@dataclass(frozen=True)
class ArmSummary:
    """What an arm's trials came to.

    Attributes:
        arm: The arm.
        rows: Its trials, failed ones included.
        metrics: The mean of each metric over the seeds.
        comparison: Its comparison with the baseline; the reason if there is none; None for the
            baseline itself and where nothing finished.
        p: The comparison's p-value, corrected for all comparisons in the table.
    """

    arm: Arm
    rows: pd.DataFrame
    metrics: Mapping[str, Mean]
    comparison: Comparison | str | None = None
    p: float | None = None

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

    @property
    def verdict(self) -> str:
        """Its comparison in a word or two."""
        if not isinstance(self.comparison, Comparison) or self.p is None:
            return ""
        if self.p >= LEVEL:
            return "no difference found"
        return "higher" if self.comparison.outcome.difference > 0 else "lower"


@dataclass(frozen=True)
class Summary:
    """A study's arms.

    Attributes:
        data: The study.
        arms: Those that are shown, in the study's order, the baseline first.
        hidden: How many more there are.
        comparisons: How many comparisons the correction covers.
    """

    data: StudyData
    arms: tuple[ArmSummary, ...]
    hidden: int
    comparisons: int

    @property
    def baseline(self) -> ArmSummary | None:
        """The arm that the others are compared with, if it finished."""
        return next((s for s in self.arms if s.arm == self.data.reference), None)

    def has(self, column: str) -> bool:
        """Whether any arm shown knows this column."""
        return any(summary.mean(column) is not None for summary in self.arms)


def summarise(data: StudyData, shown: int = SHOWN) -> Summary:
    """Summarises and compares the first arms of a study.

    The arms are taken in the study's own order: a choice by their results would make the
    correction for the number of comparisons wrong.

    Args:
        data: The study.
        shown: How many arms.
    """
    arms = list(data.groups)[:shown]
    compared = compare_all(data, arms)
    real = {arm: c for arm, c in compared.items() if isinstance(c, Comparison)}
    corrected = dict(zip(real, holm([c.outcome.p for c in real.values()]), strict=True))
    made = (
        ArmSummary(
            arm,
            data.groups[arm],
            means(data.done_in(arm), data.metrics),
            compared.get(arm),
            corrected.get(arm),
        )
        for arm in arms
    )
    return Summary(data, tuple(made), len(data.groups) - len(arms), len(real))


def means(rows: pd.DataFrame, metrics: Iterable[str]) -> dict[str, Mean]:
    """The mean of each metric over an arm's finished trials."""
    return {metric: mean_interval(rows[metric]) for metric in metrics if metric in rows}
