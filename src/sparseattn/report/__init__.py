"""Reports of a study: tables, comparisons, figures and pages. Never loads torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparseattn.report.comparison import Comparison as Comparison
    from sparseattn.report.comparison import compare as compare
    from sparseattn.report.comparison import questions as questions
    from sparseattn.report.data import StudyData as StudyData
    from sparseattn.report.load import load_study as load_study
    from sparseattn.report.page import write_report as write_report
    from sparseattn.report.summary import Summary as Summary
    from sparseattn.report.summary import summarise as summarise
    from sparseattn.report.tables import write_results as write_results
    from sparseattn.report.terminal import terminal_table as terminal_table
    from sparseattn.study.arms import ArmKey as ArmKey

_PUBLIC = {
    "ArmKey": "data",
    "Comparison": "comparison",
    "StudyData": "data",
    "Summary": "summary",
    "compare": "comparison",
    "load_study": "load",
    "questions": "comparison",
    "summarise": "summary",
    "terminal_table": "terminal",
    "write_report": "page",
    "write_results": "tables",
}

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
    "write_results",
]


def __getattr__(name: str) -> Any:
    """Imports a public name on first use: tables need no plotting."""
    if name in _PUBLIC:
        return getattr(import_module(f"sparseattn.report.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'sparseattn.report' has no attribute {name!r}")
