"""What a study found: tables, comparisons, figures and pages. Never loads torch."""

from sparseattn.report.compare import Comparison, compare
from sparseattn.report.data import Arm, StudyData
from sparseattn.report.page import write_report
from sparseattn.report.results import write_results
from sparseattn.report.summary import Summary, summarise
from sparseattn.report.table import terminal_table

__all__ = [
    "Arm",
    "Comparison",
    "StudyData",
    "Summary",
    "compare",
    "summarise",
    "terminal_table",
    "write_report",
    "write_results",
]
