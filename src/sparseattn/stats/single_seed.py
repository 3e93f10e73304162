"""Two arms with one seed each: only the examples can be tested.

The tests hold the two trained models fixed. They say whether these models differ on other
examples, not whether the arms would differ after another training run.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betainc, betaincc, betaincinv, ndtri
from scipy.stats import binomtest

from sparseattn.stats.result import LEVEL, POWER, TestResult, fewest_examples

Array = NDArray[np.float64]

#: What one seed leaves open.
ONE_SEED = "with one seed the test covers other examples, not another training run"

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def compare_binary(a: Array, b: Array, comparisons: int = 1) -> TestResult:
    """McNemar's exact test of two models' right and wrong answers.

    The interval holds zero exactly where the test finds nothing at 0.05.

    Args:
        a: The first model's answers, 1 right and 0 wrong, [examples].
        b: The second model's, on the same examples.
        comparisons: How many comparisons the table holds.

    Source:
        McNemar, "Note on the sampling error of the difference between correlated proportions or
        percentages", 1947; for the interval see `matched_interval`.
    """
    n = len(a)
    only_a, only_b = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    discordant = only_a + only_b
    low, high = matched_interval(only_a, only_b, n, LEVEL)
    return TestResult(
        difference=(only_a - only_b) / n,
        low=low,
        high=high,
        p=float(binomtest(only_a, discordant).pvalue) if discordant else 1.0,
        detectable=_detectable(math.sqrt(discordant / n**2), comparisons, n),
        test="exact McNemar",
        examples=n,
        caveat=ONE_SEED,
    )


def compare_bootstrap(
    difference: float, replicates: Array, n: int, comparisons: int = 1
) -> TestResult:
    """The paired bootstrap over examples, for metrics that are no mean of right and wrong.

    The p-value is the share of resamples whose difference is at least as far from the observed one
    as that is from zero, with one added to both counts so that it is never zero. The interval is
    the symmetric one that belongs to this test: it holds zero where p is 0.05 or more.

    Args:
        difference: The observed difference of the metric.
        replicates: The difference in each resample, [resamples], both arms on the same examples.
        n: Examples.
        comparisons: How many comparisons the table holds.

    Source:
        Noreen, "Computer-intensive methods for testing hypotheses", 1989, chapter 3 (shift method);
        Koehn, "Statistical significance tests for machine translation evaluation", 2004; Hall, "On
        symmetric bootstrap confidence intervals", 1988.
    """
    known = replicates[~np.isnan(replicates)]
    away = np.sort(np.abs(known - difference))
    far = int((away >= abs(difference)).sum())
    # Significant where fewer resamples than this are at least as far away as zero.
    half = float(away[-max(math.ceil(LEVEL * (len(known) + 1)) - 1, 1)])
    return TestResult(
        difference=difference,
        low=difference - half,
        high=difference + half,
        p=(far + 1) / (len(known) + 1),
        detectable=_detectable(float(known.std(ddof=1)), comparisons, n),
        test="paired bootstrap",
        examples=n,
        caveat=ONE_SEED,
    )


def _detectable(error: float, comparisons: int, n: int) -> float:
    """The detectable difference for a standard error, by the normal approximation."""
    level = LEVEL / comparisons
    needed = (float(-ndtri(level / 2)) + float(ndtri(POWER))) * error
    return max(needed, fewest_examples(level) / n)


def matched_interval(only_a: int, only_b: int, n: int, level: float) -> tuple[float, float]:
    """An interval of the difference of two proportions on the same examples.

    The difference is `d (2 t - 1)`: `d` is the share of examples on which the two differ, `t` the
    share of these that the first gets right. Each has its Clopper-Pearson confidence distribution,
    and the ends are quantiles of their product. Zero is outside exactly where the binomial test of
    `t = 1/2`, which is McNemar's, has a p-value of at most `level`.

    Args:
        only_a: Examples that only the first gets right.
        only_b: Examples that only the second gets right.
        n: All examples.
        level: One minus the confidence, such as 0.05.

    Source:
        Fay and Lumbard, "Confidence intervals for difference in proportions for matched pairs
        compatible with exact McNemar's or sign tests", Statistics in Medicine 40, 2021.

    >>> [round(end, 3) for end in matched_interval(6, 0, 100, 0.05)]
    [0.004, 0.126]
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
    quantiles: Array = betaincinv(a, b, chances) if a else np.zeros_like(chances)
    return quantiles
