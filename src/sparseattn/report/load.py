"""A study's folder, as the report sees it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow import parquet

from sparseattn.errors import StudyError
from sparseattn.report.data import StudyData
from sparseattn.study.results import ENVIRONMENT, Results, collect, write
from sparseattn.study.store import Store
from sparseattn.study.study import Study

__all__ = ["load_study", "rebuild"]


def load_study(folder: str | Path) -> StudyData:
    """Reads a study for `sparseattn.report`; trials that are damaged are left out.

    Args:
        folder: The study's folder.

    Raises:
        StudyError: It is not a study's folder, or no trial of it has finished.
    """
    place = Path(folder)
    study = Study.load(place)
    results, planned = _collected(study, Store(place))
    if not results.rows:
        raise StudyError(f"no trial of {place} has finished; `sparseattn study resume {place}`")
    table = results.table().to_pandas()
    done = table[table["status"] == "done"]
    return StudyData(
        name=study.spec.name,
        question=study.spec.question,
        spec={**study.spec.declared, "arms": [arm.to_json() for arm in study.arms]},
        rows=table.drop(columns=[ENVIRONMENT]),
        predictions=_Predictions(place),
        environments=[json.loads(text) for text in done[ENVIRONMENT].unique()],
        metrics=tuple(results.metrics),
        contrasts=study.spec.contrasts,
        planned=planned,
        damaged=tuple(results.damaged.values()),
    )


def rebuild(folder: str | Path, anew: bool = True) -> Results:
    """Writes the table of trials anew.

    Args:
        folder: The study's folder.
        anew: Read and check every file of every trial; else those that seem to have changed.

    Raises:
        StudyError: It is not a study's folder, or cannot be written to.
    """
    store = Store(folder)
    study = Study.load(store.folder)
    results, _ = _collected(study, store, anew)
    write(store, results)
    return results


def _collected(study: Study, store: Store, anew: bool = False) -> tuple[Results, int]:
    """The trials that are there, and how many there are to be."""
    trials, _ = study.trials()
    return collect(store, trials, anew), len(trials)


class _Predictions:
    """A trial's predictions by its digest.

    Args:
        folder: The study's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, digest: str) -> pd.DataFrame:
        place = self.folder / "trials" / digest
        path = place / "predictions.parquet"
        try:
            said = json.loads((place / "result.json").read_bytes())["files"][path.name]["sha256"]
            if hashlib.sha256(path.read_bytes()).hexdigest() != said:
                raise StudyError(f"{path} is damaged: its checksum does not match")
            frame: Any = parquet.read_table(path).to_pandas()
        except (OSError, ValueError, KeyError) as error:
            if isinstance(error, StudyError):
                raise
            raise StudyError(f"{path} cannot be read: {error}") from None
        return frame
