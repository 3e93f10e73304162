"""Means, intervals and paired comparisons; docs/statistics.md says what is used and why."""

from sparseattn.stats.bootstrap import replicates
from sparseattn.stats.counts import LearnedRuns, compare_learned
from sparseattn.stats.crossed import OverExamples, VarianceComponents, compare_runs
from sparseattn.stats.intervals import Mean, benjamini_hochberg, holm, mean_interval
from sparseattn.stats.measures import Measure, mean_of, measure
from sparseattn.stats.result import LEVEL, POWER, TestResult
from sparseattn.stats.single_seed import compare_binary, compare_bootstrap

__all__ = [
    "LEVEL",
    "POWER",
    "LearnedRuns",
    "Mean",
    "Measure",
    "OverExamples",
    "TestResult",
    "VarianceComponents",
    "benjamini_hochberg",
    "compare_binary",
    "compare_bootstrap",
    "compare_learned",
    "compare_runs",
    "holm",
    "mean_interval",
    "mean_of",
    "measure",
    "replicates",
]
