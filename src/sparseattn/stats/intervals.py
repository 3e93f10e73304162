"""The mean over seeds with its interval, and corrections for several comparisons."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit
from scipy.stats import false_discovery_control


@dataclass(frozen=True)
class Mean:
    """A mean and its interval.

    Attributes:
        value: The mean; NaN of nothing.
        half: Half the width of the interval; None for fewer than two values.
        deviation: The standard deviation between the values (n - 1); None likewise.
        count: How many values there were.
        values: The values themselves; none for fewer than two.
    """

    value: float
    half: float | None
    deviation: float | None
    count: int
    values: tuple[float, ...] = ()

    @property
    def telling(self) -> bool:
        """Whether the interval says anything: over two values it is 13 times what lies between."""
        return self.count > 2

    @property
    def low(self) -> float | None:
        """The lower end, None if unknown."""
        return None if self.half is None else self.value - self.half

    @property
    def high(self) -> float | None:
        """The upper end, None if unknown."""
        return None if self.half is None else self.value + self.half


def mean_interval(values: Iterable[float]) -> Mean:
    """The mean of independent values, such as seeds', and Student's 95% interval; NaN are left out.

    >>> mean = mean_interval([0.90, 0.91, 0.92])
    >>> print(f"{mean.value:.4f} [{mean.low:.4f}, {mean.high:.4f}]")
    0.9100 [0.8852, 0.9348]
    """
    known = np.asarray(list(values), dtype=float)
    known = known[~np.isnan(known)]
    count = len(known)
    if count < 2:
        return Mean(float(known[0]) if count else math.nan, None, None, count)
    deviation = float(known.std(ddof=1))
    quantile = float(stdtrit(count - 1, 0.975))
    half = quantile * deviation / math.sqrt(count)
    return Mean(float(known.mean()), half, deviation, count, tuple(known.tolist()))


def holm(probabilities: Sequence[float]) -> list[float]:
    """Holm's step-down correction of the p-values of a table, in the order given.

    Compared with 0.05, they keep the chance of any false finding in the table at 0.05.

    Source:
        Holm, "A simple sequentially rejective multiple test procedure", 1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(probabilities, dtype=float)
    order = np.argsort(p, kind="stable")
    raised = p[order] * np.arange(len(p), 0, -1)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return [float(value) for value in corrected]


def benjamini_hochberg(probabilities: Sequence[float]) -> list[float]:
    """The q-values of p-values, in the order given.

    To call what has a q of at most 0.05 keeps the expected share of false findings among all
    findings at 0.05, for p-values that are independent or depend on one another positively.

    Source:
        Benjamini and Hochberg, "Controlling the false discovery rate", 1995.

    >>> benjamini_hochberg([0.01, 0.04, 0.02])
    [0.03, 0.04, 0.03]
    """
    p = np.asarray(probabilities, dtype=float)
    return [float(q) for q in false_discovery_control(p)] if len(p) else []
