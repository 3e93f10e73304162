"""Two arms with one seed each: only the examples can be tested.

Both tests hold the two trained models fixed. They say whether these models differ on other
examples, not whether the arms would differ after another training run.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import binomtest

from sparseattn.stats.matched import matched_interval
from sparseattn.stats.outcome import LEVEL, POWER, Outcome, fewest_examples

__all__ = ["ONE_SEED", "compare_binary", "compare_bootstrap"]

#: What one seed leaves open.
ONE_SEED = "with one seed the test covers other examples, not another training run"


def compare_binary(a: NDArray[np.float64], b: NDArray[np.float64], comparisons: int = 1) -> Outcome:
    """McNemar's exact test of two models' right and wrong answers.

    The interval holds zero exactly where the test finds nothing at 0.05.

    Args:
        a: The first model's answers, 1 right and 0 wrong.
        b: The second model's, on the same examples.
        comparisons: How many comparisons the table holds.

    Shape:
        a: [examples]. b: [examples].

    Source:
        McNemar, "Note on the sampling error of the difference between correlated proportions or
        percentages", 1947; for the interval see `matched_interval`.
    """
    n = len(a)
    only_a, only_b = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    discordant = only_a + only_b
    p = float(binomtest(only_a, discordant).pvalue) if discordant else 1.0
    low, high = matched_interval(only_a, only_b, n, LEVEL)
    level = LEVEL / comparisons
    needed = (_quantile(level) + float(ndtri(POWER))) * math.sqrt(discordant / n**2)
    return Outcome(
        difference=(only_a - only_b) / n,
        low=low,
        high=high,
        p=p,
        detectable=max(needed, fewest_examples(level) / n),
        level=level,
        test="exact McNemar",
        examples=n,
        caveat=ONE_SEED,
    )


def compare_bootstrap(
    difference: float, replicates: NDArray[np.float64], n: int, comparisons: int = 1
) -> Outcome:
    """The paired bootstrap over examples, for metrics that are no mean of right and wrong.

    The p-value is the share of resamples whose difference is at least as far from the observed one
    as that is from zero, with one added to both counts so that it is never zero. The interval is
    the symmetric one that turns with this test: it holds zero where p is 0.05 or more.

    Args:
        difference: The observed difference of the metric.
        replicates: The difference in each resample, both arms on the same resampled examples.
        n: Examples.
        comparisons: How many comparisons the table holds.

    Shape:
        replicates: [resamples].

    Source:
        Noreen, "Computer-intensive methods for testing hypotheses", 1989, chapter 3 (shift method);
        Koehn, "Statistical significance tests for machine translation evaluation", 2004; Hall, "On
        symmetric bootstrap confidence intervals", 1988.
    """
    known = replicates[~np.isnan(replicates)]
    away = np.sort(np.abs(known - difference))
    far = int((away >= abs(difference)).sum())
    # A difference is called where fewer resamples than this are at least as far away as zero.
    half = float(away[-max(math.ceil(LEVEL * (len(known) + 1)) - 1, 1)])
    level = LEVEL / comparisons
    needed = (_quantile(level) + float(ndtri(POWER))) * float(known.std(ddof=1))
    return Outcome(
        difference=difference,
        low=difference - half,
        high=difference + half,
        p=(far + 1) / (len(known) + 1),
        detectable=max(needed, fewest_examples(level) / n),
        level=level,
        test="paired bootstrap",
        examples=n,
        caveat=ONE_SEED,
    )


def _quantile(level: float) -> float:
    return float(-ndtri(level / 2))
