"""The paired bootstrap: every run on the same resampled examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sparseattn.stats.measures import Measure

RESAMPLES = 2000

#: Counts held at once: 32 MB.
_AT_ONCE = 4_000_000


def replicates(
    measures: Sequence[Measure],
    n: int,
    resamples: int = RESAMPLES,
    clusters: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """The metric of each run in each resample of the examples, or of clusters of them.

    Args:
        measures: The metric of each run, all on the same `n` examples in the same order.
        n: Examples.
        resamples: How many resamples of `n` examples with replacement.
        clusters: The number of each example's cluster, from 0 on; clusters are drawn whole. By
            default each example is drawn by itself. Shape: [n].

    Shape:
        Returns [runs, resamples].
    """
    generator = np.random.default_rng(0)
    units = n if clusters is None else int(clusters.max()) + 1
    chunk = max(1, min(resamples, _AT_ONCE // n))
    values = np.empty((len(measures), resamples))
    for start in range(0, resamples, chunk):
        count = min(chunk, resamples - start)
        drawn = generator.integers(units, size=(count, units)) + units * np.arange(count)[:, None]
        often = np.bincount(drawn.ravel(), minlength=count * units).reshape(count, units)
        weights = (often if clusters is None else often[:, clusters]).astype(float)
        for run, measure in enumerate(measures):
            values[run, start : start + count] = measure.weighted(weights)
    return values
