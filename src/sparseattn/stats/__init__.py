"""Means, intervals and paired comparisons; what is chosen and why is in docs/statistics.md.

>>> from sparseattn.stats import mean_interval
>>> print(mean_interval([0.90, 0.91, 0.92]))
0.9100 [0.8852, 0.9348] over 3
"""

from sparseattn.stats.bootstrap import replicates
from sparseattn.stats.crossed import OverExamples, VarianceComponents, compare_runs
from sparseattn.stats.holm import holm
from sparseattn.stats.intervals import Mean, mean_interval
from sparseattn.stats.measures import Measure, mean_of, recognise
from sparseattn.stats.outcome import LEVEL, POWER, Outcome
from sparseattn.stats.single_seed import compare_binary, compare_bootstrap

__all__ = [
    "LEVEL",
    "POWER",
    "Mean",
    "Measure",
    "Outcome",
    "OverExamples",
    "VarianceComponents",
    "compare_binary",
    "compare_bootstrap",
    "compare_runs",
    "holm",
    "mean_interval",
    "mean_of",
    "recognise",
    "replicates",
]
