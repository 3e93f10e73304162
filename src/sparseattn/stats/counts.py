"""Tasks that a run learns or does not: how many runs did, and an exact test of that number."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import boschloo_exact

from sparseattn.stats.result import TestResult


@dataclass(frozen=True)
class LearnedRuns:
    """The runs of an arm that learned the task.

    Attributes:
        runs: How many did.
        of: How many runs there are.
        mean: The mean metric of those that did; NaN if none did.
    """

    runs: int
    of: int
    mean: float

    @classmethod
    def among(cls, values: NDArray[np.float64], threshold: float) -> LearnedRuns:
        """Counts the runs whose metric is at least `threshold`."""
        high = values[values >= threshold]
        return cls(len(high), len(values), float(high.mean()) if len(high) else math.nan)


def compare_learned(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    threshold: float,
    examples: int,
) -> TestResult:
    """Compares how many runs of two arms learned the task.

    The null hypothesis is that a new run learns it with the same chance in both arms. Nothing is
    assumed of the metric's spread, so the difference of the means has no interval and no
    detectable size.

    Args:
        a: The metric of each run of the first arm.
        b: Likewise of the second.
        threshold: The metric from which a run has learned the task.
        examples: Evaluation examples that both arms saw.

    Source:
        Boschloo, "Raised conditional level of significance for the 2x2-table when testing the
        equality of two probabilities", Statistica Neerlandica 24, 1970. It is exact, as Fisher's
        test is, and nowhere weaker.
    """
    of_a, of_b = (LearnedRuns.among(values, threshold) for values in (a, b))
    return TestResult(
        difference=float(a.mean() - b.mean()),
        low=math.nan,
        high=math.nan,
        p=_p(of_a.runs, of_a.of, of_b.runs, of_b.of),
        detectable=math.nan,
        test="Boschloo's exact test of how many runs learned the task",
        examples=examples,
    )


@lru_cache
def _p(runs_a: int, of_a: int, runs_b: int, of_b: int) -> float:
    """1 where all runs learned the task, or none did; a search for the worst chance elsewhere."""
    if runs_a + runs_b in (0, of_a + of_b):
        return 1.0
    table = [[runs_a, runs_b], [of_a - runs_a, of_b - runs_b]]
    return min(float(boschloo_exact(table).pvalue), 1.0)
