"""The mean over seeds and how far to trust it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

__all__ = ["Mean", "mean_interval"]


@dataclass(frozen=True)
class Mean:
    """A mean and its interval.

    Attributes:
        value: The mean; NaN of nothing.
        half: Half the width of the interval; None where one value or none leaves it unknown.
        deviation: The standard deviation between the values (n - 1); None likewise.
        count: How many values there were.
    """

    value: float
    half: float | None
    deviation: float | None
    count: int

    @property
    def low(self) -> float | None:
        """The lower end, None if unknown."""
        return None if self.half is None else self.value - self.half

    @property
    def high(self) -> float | None:
        """The upper end, None if unknown."""
        return None if self.half is None else self.value + self.half

    def __str__(self) -> str:
        """The mean, the interval and the count."""
        ends = "no interval" if self.half is None else f"[{self.low:.4f}, {self.high:.4f}]"
        return f"{self.value:.4f} {ends} over {self.count}"


def mean_interval(values: Iterable[float], confidence: float = 0.95) -> Mean:
    """The mean of independent values and Student's interval for what they are draws of.

    Args:
        values: A value a seed; NaN are left out.
        confidence: How often such intervals hold the truth, in (0, 1).

    >>> print(mean_interval([0.9]))
    0.9000 no interval over 1
    """
    known = np.asarray(list(values), dtype=float)
    known = known[~np.isnan(known)]
    count = len(known)
    if count < 2:
        return Mean(float(known[0]) if count else math.nan, None, None, count)
    deviation = float(known.std(ddof=1))
    quantile = float(stdtrit(count - 1, 0.5 + confidence / 2))
    return Mean(float(known.mean()), quantile * deviation / math.sqrt(count), deviation, count)
