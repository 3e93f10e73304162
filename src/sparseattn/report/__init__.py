"""Reports of a study: tables, comparisons, figures and pages. Never loads torch."""

from __future__ import annotations

from sparseattn.report.comparison import Comparison, compare, questions
from sparseattn.report.data import StudyData, load_study
from sparseattn.report.page import write_report
from sparseattn.report.summary import Summary, summarise
from sparseattn.report.terminal import terminal_table
from sparseattn.study.arms import ArmKey

__all__ = [
    "ArmKey",
    "Comparison",
    "StudyData",
    "Summary",
    "compare",
    "load_study",
    "questions",
    "summarise",
    "terminal_table",
    "write_report",
]
