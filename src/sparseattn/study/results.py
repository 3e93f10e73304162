"""The table of trials, derived from their folders."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import csv, parquet

from sparseattn.errors import StudyError
from sparseattn.study.arms import DENSE
from sparseattn.study.record import DONE, RESULT
from sparseattn.study.store import Store
from sparseattn.study.study import Study
from sparseattn.study.trial import TrialSpec

_SHARES = ("sparsity", "layer_sparsity", "block_density", "mean_degree")

#: The columns in their order. Metrics follow `headline`, columns that are not named here follow at
#: the end, in alphabetical order.
COLUMNS = (
    "arm",
    "layers",
    "seed",
    "status",
    "headline",
    *_SHARES,
    "train_examples",
    "evaluation_examples",
    "train_cut",
    "evaluation_cut",
    "steps",
    "seconds",
    "seconds_train",
    "seconds_evaluate",
    "pattern",
    "reason",
    "digest",
)

#: The column with a trial's `environment.json`; in the Parquet file only.
ENVIRONMENT = "environment"

_RESULT = ("status", "reason", "headline", *_SHARES)
_WHOLE = ("seed", "train_examples", "evaluation_examples", "steps")
_TEXT = ("arm", "layers", "status", "headline", "pattern", "reason", "digest", "model", "backend")

Row = dict[str, Any]


@dataclass
class Results:
    """The trials of a folder.

    Attributes:
        rows: A row a trial, by digest.
        metrics: Which columns hold metrics.
        damaged: What is wrong with the trials that cannot be read.
    """

    rows: dict[str, Row] = field(default_factory=dict)
    metrics: dict[str, None] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> list[str]:
        """Digests of the trials that failed."""
        return [digest for digest, row in self.rows.items() if row["status"] != DONE]

    def table(self) -> pyarrow.Table:
        """The rows with their columns in the same order and of the same types every time."""
        names = {name for row in self.rows.values() for name in row} - {ENVIRONMENT}
        columns = [*ordered({*COLUMNS, *self.metrics, *names}, sorted(self.metrics)), ENVIRONMENT]
        fields = [pyarrow.field(name, _type(name)) for name in columns]
        return pyarrow.Table.from_pylist(list(self.rows.values()), schema=pyarrow.schema(fields))


def ordered(names: Collection[str], metrics: Iterable[str]) -> list[str]:
    """Columns in the same order every time, metrics after the name of the main one."""
    at = COLUMNS.index("headline") + 1
    first = dict.fromkeys([*COLUMNS[:at], *metrics, *COLUMNS[at:]])
    return [name for name in (*first, *sorted({*names} - {*first})) if name in names]


def collect(store: Store, trials: Iterable[TrialSpec]) -> Results:
    """Reads and checks finished trials.

    Args:
        store: The study's folder.
        trials: Which trials, in the order of the table. They say what their arms are called:
            another study may have run them under other names.
    """
    results, finished = Results(), store.finished()
    for trial in trials:
        digest = trial.digest
        if digest not in finished:
            continue
        try:
            row, metrics = _row(digest, store.files(digest))
        except StudyError as error:
            results.damaged[digest] = str(error)
            continue
        results.rows[digest] = row | {"arm": trial.arm}
        results.metrics |= dict.fromkeys(metrics)
    return results


def rebuild(folder: str | Path) -> Results:
    """Writes the table of a study's trials."""
    store = Store(folder)
    results = collect(store, Study.load(store.folder).trials()[0])
    write(store, results)
    return results


def write(store: Store, results: Results) -> None:
    """Writes `results.csv` and `results.parquet`."""
    table = results.table()
    as_csv, as_parquet = io.BytesIO(), io.BytesIO()
    csv.write_csv(table.drop_columns([ENVIRONMENT]), as_csv)
    parquet.write_table(table, as_parquet, compression="zstd")
    store.write("results.csv", as_csv.getvalue())
    store.write("results.parquet", as_parquet.getvalue())


def _row(digest: str, files: Mapping[str, bytes]) -> tuple[Row, dict[str, float]]:
    """The row of a trial, and those of its columns that are metrics."""
    result, spec = json.loads(files[RESULT]), json.loads(files["spec.json"])
    counts, seconds = result.get("counts") or {}, result.get("seconds") or {}
    metrics = result.get("metrics") or {}
    row: Row = {name: spec[name] for name in ("arm", "pattern", "seed", "model", "backend")}
    row |= {
        "digest": digest,
        "layers": "" if spec["pattern"] == DENSE else spec["layers"],
        **{name: result.get(name) for name in _RESULT},
        **{name: int(counts[name]) for name in _WHOLE if name in counts},
        **{name: counts[name] for name in ("train_cut", "evaluation_cut") if name in counts},
        **{f"seconds_{name}": value for name, value in seconds.items() if name != "total"},
        "seconds": seconds.get("total"),
        ENVIRONMENT: files["environment.json"].decode(),
        **{f"headline_{phase}": v for phase, v in (result.get("phases") or {}).items()},
    }
    return row | metrics, metrics


def _type(name: str) -> pyarrow.DataType:
    if name in _WHOLE:
        return pyarrow.int64()
    return pyarrow.string() if name in (*_TEXT, ENVIRONMENT) else pyarrow.float64()
