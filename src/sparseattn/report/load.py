"""A study's folder, as the report sees it."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from pyarrow import parquet

from sparseattn.errors import StudyError
from sparseattn.report.data import StudyData
from sparseattn.study.results import ENVIRONMENT, collect
from sparseattn.study.store import Store
from sparseattn.study.study import Study

__all__ = ["load_study"]


def load_study(folder: str | Path) -> StudyData:
    """Reads a study for `sparseattn.report`; trials that are damaged are left out.

    Args:
        folder: The study's folder.

    Raises:
        StudyError: It is not a study's folder, or no trial of it has finished.
    """
    store = Store(folder)
    study = Study.load(store.folder)
    trials, _ = study.trials()
    results = collect(store, trials)
    if not results.rows:
        raise StudyError(f"no trial of {folder} has finished; `sparseattn study resume {folder}`")
    table = results.table().to_pandas()
    done = table[table["status"] == "done"]

    def predictions(digest: str) -> pd.DataFrame:
        data = io.BytesIO(store.files(digest)["predictions.parquet"])
        frame: pd.DataFrame = parquet.read_table(data).to_pandas()
        return frame

    return StudyData(
        name=study.spec.name,
        question=study.spec.question,
        spec={**study.spec.declared, "arms": [asdict(arm) for arm in study.arms]},
        rows=table.drop(columns=[ENVIRONMENT]),
        predictions=predictions,
        environments=[json.loads(text) for text in done[ENVIRONMENT].unique()],
        metrics=tuple(results.metrics),
        contrasts=study.spec.contrasts,
        planned=len(trials),
        damaged=tuple(results.damaged.values()),
        added=study.added,
        learned_at=study.spec.learned_at,
    )
