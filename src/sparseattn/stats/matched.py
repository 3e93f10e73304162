"""The interval that belongs to McNemar's exact test."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betainc, betaincc, betaincinv

__all__ = ["matched_interval"]

Array = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def matched_interval(only_a: int, only_b: int, n: int, level: float) -> tuple[float, float]:
    """An interval of the difference of two proportions on the same examples.

    The difference is `d (2 t - 1)`: `d` is the share of examples on which the two differ, `t` the
    share of these that the first gets right. Each has its Clopper-Pearson confidence distribution,
    and the ends are quantiles of their product. As `d` is positive, the sign of an end is that of
    `2 t - 1` alone: zero is outside exactly where the binomial test of `t = 1/2`, which is
    McNemar's, has a p-value of at most `level`.

    Args:
        only_a: Examples that only the first gets right.
        only_b: Examples that only the second gets right.
        n: All examples.
        level: One minus the confidence, such as 0.05.

    Returns:
        The lower and the upper end.

    Source:
        Fay and Lumbard, "Confidence intervals for difference in proportions for matched pairs
        compatible with exact McNemar's or sign tests", Statistics in Medicine 40, 2021.

    >>> [round(end, 3) for end in matched_interval(6, 0, 100, 0.05)]
    [0.002, 0.126]
    """
    return _lower(only_a, only_b, n, level / 2), -_lower(only_b, only_a, n, level / 2)


def _lower(only_a: int, only_b: int, n: int, tail: float) -> float:
    """Where the product's lower distribution reaches `tail`; a Beta(0, .) is a point at zero."""
    differ = only_a + only_b
    below = float(betainc(only_a, only_b + 1, 0.5)) if only_a else 1.0
    if below == tail:
        return 0.0
    positive = below < tail
    if differ == n and not positive:  # the share is 1 for certain
        return float(2 * _quantiles(only_a, only_b + 1, np.array([tail]))[0] - 1)
    start, end = (below, 1.0) if positive else (0.0, below)
    chances = start + (end - start) * (_NODES + 1) / 2
    sizes = np.abs(2 * _quantiles(only_a, only_b + 1, chances) - 1)

    def excess(size: float) -> float:
        share = np.minimum(size / np.maximum(sizes, 1e-300), 1.0)
        reached = (
            betainc(differ, n - differ + 1, share)
            if positive
            else betaincc(differ + 1, n - differ, share)
        )
        inside = (end - start) / 2 * float(_WEIGHTS @ reached)
        return (below + inside if positive else inside) - tail

    size = float(brentq(excess, 0.0, 1.0, xtol=1e-12))
    return size if positive else -size


def _quantiles(a: int, b: int, chances: Array) -> Array:
    """Of Beta(a, b); zero where a is."""
    found: Array = betaincinv(a, b, chances) if a else np.zeros_like(chances)
    return found
