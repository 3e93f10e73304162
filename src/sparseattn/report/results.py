"""The table of trials as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from sparseattn.study.columns import COLUMNS

__all__ = ["ordered", "write_results"]


def ordered(rows: pd.DataFrame, metrics: tuple[str, ...] = ()) -> pd.DataFrame:
    """The rows with their columns in the same order every time.

    Args:
        rows: A row a trial.
        metrics: Columns that hold metrics, to stand after the name of the main one.
    """
    known = list(COLUMNS)
    at = known.index("headline") + 1
    first = dict.fromkeys([*known[:at], *metrics, *known[at:]])
    others = sorted(set(map(str, rows.columns)) - set(first))
    return rows[[column for column in [*first, *others] if column in rows]]


def write_results(
    rows: pd.DataFrame, folder: str | Path, metrics: tuple[str, ...] = ()
) -> tuple[Path, Path]:
    """Writes `results.csv` and `results.json`, the same bytes for the same rows.

    Args:
        rows: A row a trial.
        folder: An existing folder.
        metrics: Columns that hold metrics.

    Returns:
        The two paths. What is not known is empty in the CSV and null in the JSON.
    """
    table = ordered(rows, metrics)
    as_csv, as_json = Path(folder) / "results.csv", Path(folder) / "results.json"
    as_csv.write_text(table.to_csv(index=False, lineterminator="\n"), encoding="utf-8")
    known = table.astype(object).where(table.notna(), None)
    text = json.dumps(known.to_dict("records"), indent=1, ensure_ascii=False, default=_plain)
    as_json.write_text(text + "\n", encoding="utf-8")
    return as_csv, as_json


def _plain(value: Any) -> Any:
    """A number of NumPy's as Python's, anything else as text."""
    return value.item() if hasattr(value, "item") else str(value)
