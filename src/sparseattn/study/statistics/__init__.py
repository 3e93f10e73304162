"""Means, intervals and paired comparisons; what is chosen and why is in docs/statistics.md.

>>> from sparseattn.study.statistics import mean_interval
>>> print(mean_interval([0.90, 0.91, 0.92]))
0.9100 [0.8852, 0.9348] over 3
"""

from sparseattn.study.statistics.holm import holm
from sparseattn.study.statistics.intervals import Mean, mean_interval
from sparseattn.study.statistics.measures import Measure, mean_of, recognise
from sparseattn.study.statistics.oneseed import compare_binary, compare_bootstrap
from sparseattn.study.statistics.outcome import LEVEL, POWER, Outcome
from sparseattn.study.statistics.resample import replicates
from sparseattn.study.statistics.twoway import OverExamples, Spread, compare_runs

__all__ = [
    "LEVEL",
    "POWER",
    "Mean",
    "Measure",
    "Outcome",
    "OverExamples",
    "Spread",
    "compare_binary",
    "compare_bootstrap",
    "compare_runs",
    "holm",
    "mean_interval",
    "mean_of",
    "recognise",
    "replicates",
]
