"""What a study found: tables, comparisons, figures and pages. Never loads torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparseattn.report.comparison import Comparison as Comparison
    from sparseattn.report.comparison import compare as compare
    from sparseattn.report.data import Arm as Arm
    from sparseattn.report.data import StudyData as StudyData
    from sparseattn.report.page import write_report as write_report
    from sparseattn.report.results import write_results as write_results
    from sparseattn.report.summary import Summary as Summary
    from sparseattn.report.summary import summarise as summarise
    from sparseattn.report.table import terminal_table as terminal_table

_PUBLIC = {
    "Arm": "data",
    "Comparison": "comparison",
    "StudyData": "data",
    "Summary": "summary",
    "compare": "comparison",
    "load_study": "load",
    "summarise": "summary",
    "terminal_table": "table",
    "write_report": "page",
    "write_results": "results",
}

__all__ = [
    "Arm",
    "Comparison",
    "StudyData",
    "Summary",
    "compare",
    "load_study",
    "summarise",
    "terminal_table",
    "write_report",
    "write_results",
]


def __getattr__(name: str) -> Any:
    """Imports a public name on first use: tables need no plotting."""
    if name in _PUBLIC:
        return getattr(import_module(f"sparseattn.report.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'sparseattn.report' has no attribute {name!r}")
