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

from sparseattn.study.statistics.outcome import LEVEL, POWER, Outcome, fewest_examples

__all__ = ["ONE_SEED", "compare_binary", "compare_bootstrap"]

#: What one seed leaves open.
ONE_SEED = "with one seed the test covers other examples, not another training run"


def compare_binary(a: NDArray[np.float64], b: NDArray[np.float64], comparisons: int = 1) -> Outcome:
    """McNemar's exact test of two models' right and wrong answers.

    The interval is Wald's with half an example added to each cell of the 2 x 2 table.

    Args:
        a: The first model's answers, 1 right and 0 wrong.
        b: The second model's, on the same examples.
        comparisons: How many comparisons the table holds.

    Shape:
        a: [examples]. b: [examples].

    Source:
        McNemar, 1947; for the interval Agresti and Min, "Simple improved confidence intervals for
        comparing matched proportions", 2005.
    """
    n = len(a)
    only_a, only_b = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    discordant = only_a + only_b
    p = float(binomtest(only_a, discordant).pvalue) if discordant else 1.0
    middle = (only_a - only_b) / (n + 2)
    share = (discordant + 1) / (n + 2)
    half = _quantile(LEVEL) * math.sqrt(max(share - middle**2, 0.0) / (n + 2))
    level = LEVEL / comparisons
    needed = (_quantile(level) + float(ndtri(POWER))) * math.sqrt(discordant / n**2)
    return Outcome(
        difference=(only_a - only_b) / n,
        low=middle - half,
        high=middle + half,
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
    as that is from zero, with one added to both counts so that it is never zero.

    Args:
        difference: The observed difference of the metric.
        replicates: The difference in each resample, both arms on the same resampled examples.
        n: Examples.
        comparisons: How many comparisons the table holds.

    Shape:
        replicates: [resamples].

    Source:
        Noreen, "Computer-intensive methods for testing hypotheses", 1989, chapter 3 (shift method);
        Koehn, "Statistical significance tests for machine translation evaluation", 2004.
    """
    known = replicates[~np.isnan(replicates)]
    far = int((np.abs(known - difference) >= abs(difference)).sum())
    low, high = np.quantile(known, [LEVEL / 2, 1 - LEVEL / 2])
    level = LEVEL / comparisons
    needed = (_quantile(level) + float(ndtri(POWER))) * float(known.std(ddof=1))
    return Outcome(
        difference=difference,
        low=float(low),
        high=float(high),
        p=(far + 1) / (len(known) + 1),
        detectable=max(needed, fewest_examples(level) / n),
        level=level,
        test="paired bootstrap",
        examples=n,
        caveat=ONE_SEED,
    )


def _quantile(level: float) -> float:
    return float(-ndtri(level / 2))
