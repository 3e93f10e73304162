"""Several comparisons in one table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["holm"]


def holm(probabilities: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the chance of any false call in the table stays at the level.

    Args:
        probabilities: The p-values of all comparisons in the table, in any order.

    Returns:
        The corrected p-values in the same order: compare each with the level itself.

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
