"""Two arms with several seeds each: a test for new seeds *and* new examples.

All seeds of all arms are evaluated on the same examples. McNemar's test on the pooled predictions
sees neither that an example comes back with each seed nor that a run as a whole may be lucky; the
t-test over seeds does not see the examples. docs/statistics.md has the simulations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import stdtrit

from sparseattn.stats.result import LEVEL, POWER, TestResult, fewest_examples

Array = NDArray[np.float64]

#: Studies drawn to find the detectable difference, and the smallest p-value looked for.
_DRAWS, _SMALLEST = 4000, 1e-12


@dataclass(frozen=True)
class OverExamples:
    """How the difference of two arms' means varies over draws of the examples.

    Attributes:
        variance: With the runs being what they are.
        common: The part that more runs would not take away: examples that suit one arm better
            whatever the seed. At least 0.
        count: Examples, or clusters of examples that belong together.
        differing: Those on which any two runs of the arms differ.
    """

    variance: float
    common: float
    count: int
    differing: int

    @classmethod
    def of(cls, covariance: Array, first: int, count: int, differing: int) -> OverExamples:
        """Splits the covariance between runs.

        Args:
            covariance: Of the runs' metrics over draws of the examples, [runs, runs]: the runs of
                the first arm, then those of the second.
            first: How many of them are the first arm's.
            count: Examples, or clusters.
            differing: Those on which any two runs differ.
        """
        second = len(covariance) - first
        weights = np.concatenate([np.full(first, 1 / first), np.full(second, -1 / second)])
        variance = max(float(weights @ covariance @ weights), 0.0)
        own = _own(covariance[:first, :first]) + _own(covariance[first:, first:])
        return cls(variance, max(variance - own, 0.0), count, differing)

    @classmethod
    def paired(cls, covariance: Array, count: int, differing: int) -> OverExamples:
        """Likewise where each run of the first arm has one of the second with the same seed.

        Args:
            covariance: Of the runs' metrics, [2 pairs, 2 pairs], both arms in the same order.
            count: Examples, or clusters.
            differing: Those on which any two runs differ.
        """
        half = len(covariance) // 2
        contrast = np.hstack([np.eye(half), -np.eye(half)])
        of_pairs = contrast @ covariance @ contrast.T
        variance = max(float(of_pairs.mean()), 0.0)
        return cls(variance, max(variance - _own(of_pairs), 0.0), count, differing)


def _own(covariance: Array) -> float:
    """Variance of an arm's mean from what an example does in one run and not in another."""
    count = len(covariance)
    if count < 2:
        return 0.0
    diagonal = float(np.trace(covariance))
    shared = (float(covariance.sum()) - diagonal) / (count - 1)
    return (diagonal - shared) / count**2


@dataclass(frozen=True)
class VarianceComponents:
    """Where the variance of the difference of two arms' means comes from.

    Attributes:
        runs: For each arm, the variance of its mean over runs: that of a run over their number.
            One value, that of the mean difference of the pairs, where seeds are paired.
        counts: How many runs, or pairs, each value comes from; at least 2.
        examples: The variance over examples.
    """

    runs: tuple[float, ...]
    counts: tuple[int, ...]
    examples: OverExamples

    @classmethod
    def of(cls, a: Array, b: Array, examples: OverExamples) -> VarianceComponents:
        """From the metric of each run of the two arms, at least two runs each."""
        runs = float(a.var(ddof=1)) / len(a), float(b.var(ddof=1)) / len(b)
        return cls(runs, (len(a), len(b)), examples)

    @classmethod
    def paired(cls, a: Array, b: Array, examples: OverExamples) -> VarianceComponents:
        """From runs that are paired by their seeds, at least two pairs."""
        return cls((float((a - b).var(ddof=1)) / len(a),), (len(a),), examples)

    def half_width(self, level: float) -> float:
        """The smallest difference that is significant at this level, two-sided."""
        return float(self._half_widths(np.array(self.runs)[:, None], level)[0])

    def p(self, difference: float) -> float:
        """The level at which this difference is just significant."""
        size = abs(difference)
        if size == 0:
            return 1.0
        if self.half_width(_SMALLEST) <= size:
            return _SMALLEST
        return float(brentq(lambda level: self.half_width(level) - size, _SMALLEST, 1, xtol=1e-13))

    def detectable(self, level: float, power: float = POWER) -> float:
        """The true difference that the test at this level finds with this chance.

        Studies with these variances are drawn; their estimates of the variances differ as ours do.
        A true difference is found when, with the luck of the draw, it passes that draw's half
        width.
        """
        generator = np.random.default_rng(0)
        runs = np.array(
            [
                variance * generator.chisquare(count - 1, _DRAWS) / (count - 1)
                for variance, count in zip(self.runs, self.counts, strict=True)
            ]
        )
        truth = max(sum(self.runs) + self.examples.common, self.examples.variance)
        luck = generator.normal(0.0, math.sqrt(truth), _DRAWS)
        needed = float(np.quantile(self._half_widths(runs, level) - luck, power))
        return max(needed, fewest_examples(level) / self.examples.count)

    def _half_widths(self, runs: Array, level: float) -> Array:
        """Banerjee's bound, and never less than the test over examples alone asks for."""
        total = runs.sum(axis=0)
        below = (runs**2 / (np.array(self.counts)[:, None] - 1)).sum(axis=0)
        freedom = np.divide(total**2, below, out=np.ones_like(below), where=below > 0)
        over_runs = stdtrit(freedom, level / 2) ** 2 * total
        over_examples = float(stdtrit(max(self.examples.count - 1, 1), level / 2)) ** 2
        both = over_runs + over_examples * self.examples.common
        widths: Array = np.sqrt(np.maximum(both, over_examples * self.examples.variance))
        return widths


def compare_runs(
    a: Array, b: Array, examples: OverExamples, comparisons: int = 1, paired: bool = False
) -> TestResult:
    """Compares two arms with at least two runs each, over new runs and new examples.

    A difference is significant when its square passes `t_f^2 V_runs + t_(n-1)^2 V_common`
    (Banerjee's bound for a sum of variances with different degrees of freedom) and also what the
    test over examples alone asks for. `V_runs = s_a^2 / S_a + s_b^2 / S_b` is Welch's; of S pairs
    with the same seed it is that of their differences, `s_d^2 / S` with S - 1 degrees of freedom.
    Examples are always paired.

    No exact test on k differing examples can give a p-value under `2^(1 - k)`; nor does this one,
    and where that is 0.05 or more the interval holds zero, too.

    Args:
        a: The metric of each run of the first arm.
        b: Likewise of the second.
        examples: The variance of the difference over examples.
        comparisons: How many comparisons the table holds.
        paired: Whether the runs of both arms have the same seeds in the same order.

    Source:
        Banerjee, "Approximate confidence interval for linear functions of means of k populations
        when the population variances are not equal", Sankhya 22, 1960. Clark, "The
        language-as-fixed-effect fallacy", 1973, on subjects and examples that are both drawn.
    """
    make = VarianceComponents.paired if paired else VarianceComponents.of
    components = make(a, b, examples)
    difference = float(a.mean() - b.mean())
    half = components.half_width(LEVEL)
    least = min(1.0, 2.0 ** (1 - examples.differing))
    if least >= LEVEL:
        half = max(half, abs(difference))
    return TestResult(
        difference=difference,
        low=difference - half,
        high=difference + half,
        p=max(components.p(difference), least),
        detectable=components.detectable(LEVEL / comparisons),
        test="seeds and examples" + (", paired" if paired else ""),
        examples=examples.count,
    )
