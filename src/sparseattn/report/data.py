"""A finished (or half finished) study, as the report sees it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow import parquet

from sparseattn.errors import SparseAttnError, StudyError, unknown
from sparseattn.selection import select_indices
from sparseattn.study.arms import DENSE, ArmKey
from sparseattn.study.results import ENVIRONMENT, Results, collect
from sparseattn.study.store import Store
from sparseattn.study.study import Study
from sparseattn.words import counted

#: Kinds of task that a run learns or does not, so that its metric has two modes over seeds.
_BIMODAL = ("question-answering",)


@dataclass(frozen=True)
class StudyData:
    """A study's results.

    Attributes:
        name: The study's name.
        question: What it asks, in a sentence.
        spec: The resolved spec as plain values; `model`, `task` and `training` are shown, and the
            task's `kind` and `labels` decide how a metric is computed again.
        rows: A row for each trial: digest, arm, layers, seed, status ("done" or "failed"), headline
            (the name of the main metric), a column for each metric, and what else of
            `sparseattn.study.results.COLUMNS` is known.
        predictions: Gives a trial's predictions by its digest: a row for each example, with
            `example`, `label`, `prediction` and `score`. Called only for what is compared.
        metrics: The columns that hold metrics, the main one first.
        environments: Versions, devices and the like; different ones are shown apart.
        contrasts: For each question, the pairs of arms that the study set out to compare, each a
            name or `name@layers`.
        planned: Trials of the study, those that have not run included; None if unknown.
        damaged: What is wrong with trials that could not be read.
        added: Those of `contrasts` that were added when a trial had been run; they are post hoc.
        learned_at: The main metric from which a run has learned the task; see `threshold`.
    """

    name: str
    question: str
    spec: Mapping[str, Any]
    rows: pd.DataFrame
    predictions: Callable[[str], pd.DataFrame]
    metrics: tuple[str, ...]
    environments: Sequence[Mapping[str, Any]] = ()
    contrasts: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    planned: int | None = None
    damaged: tuple[str, ...] = ()
    added: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    learned_at: float | None = None

    @cached_property
    def headline(self) -> str:
        """The name of the main metric; empty if no trial has one."""
        names = [str(name) for name in self.rows["headline"].dropna().unique() if str(name)]
        if len(names) > 1:
            raise StudyError(f"trials have different main metrics: {', '.join(names)}")
        return names[0] if names else ""

    @property
    def task(self) -> Mapping[str, Any]:
        """The task of the spec."""
        task: Mapping[str, Any] = self.spec["task"]
        return task

    @cached_property
    def threshold(self) -> float | None:
        """The main metric from which a run has learned the task; None where runs have one mode.

        What the study states; else, for questions, half of the metric of the baseline's best run,
        if there are runs on both sides of it.
        """
        if self.learned_at is not None or not self.headline:
            return self.learned_at
        if self.task["kind"] not in _BIMODAL or self.reference is None:
            return None
        half = float(self.done_in(self.reference)[self.headline].max()) / 2
        return half if (self.done[self.headline] < half).any() else None

    @cached_property
    def done(self) -> pd.DataFrame:
        """The trials that finished."""
        return self.rows[self.rows["status"] == "done"]

    @cached_property
    def failed(self) -> pd.DataFrame:
        """The trials that did not."""
        return self.rows[self.rows["status"] == "failed"]

    @property
    def missing(self) -> str:
        """Which trials are not there, in a sentence; empty for a whole study."""
        absent = max(0, (self.planned or 0) - len(self.rows) - len(self.damaged))
        one, many = ("has not run", "is damaged"), ("have not run", "are damaged")
        counts = zip((absent, len(self.damaged)), one, many, strict=True)
        parts = [f"{n:,} {said if n == 1 else of_many}" for n, said, of_many in counts if n]
        return f"Of {counted(self.planned or 0, 'trial')} {' and '.join(parts)}." if parts else ""

    def only(self, seeds: str) -> StudyData:
        """The same study with some of its seeds alone, such as those that nobody has looked at.

        Args:
            seeds: Which, written as layers are: `"5:"`, `"0,2"`.

        Raises:
            StudyError: The selection does not parse, or no trial has such a seed.
        """
        known = self.rows["seed"].astype(int)
        try:
            wanted = select_indices(seeds, int(known.max()) + 1, "seed")
        except SparseAttnError:
            wanted = []
        rows = self.rows[known.isin(wanted)]
        if rows.empty:
            have = ", ".join(map(str, sorted(known.unique())))
            raise StudyError(f"no trial has a seed of {seeds!r}; write '5:' or '0,2' of {have}")
        return replace(self, rows=rows, planned=None)

    @cached_property
    def groups(self) -> dict[ArmKey, pd.DataFrame]:
        """The rows of each arm: the dense one first, the others in the order of the table."""
        shared = len(set(self.rows["layers"]) - {""}) == 1
        rows_of = {
            ArmKey(str(name), str(layers), shared and layers != ""): rows
            for (name, layers), rows in self.rows.groupby(["arm", "layers"], sort=False)
        }
        return {arm: rows_of[arm] for arm in sorted(rows_of, key=lambda arm: arm.name != DENSE)}

    def done_in(self, arm: ArmKey) -> pd.DataFrame:
        """The finished trials of an arm that have the main metric."""
        rows = self.groups[arm]
        done = rows["status"] == "done"
        return rows[done & rows[self.headline].notna()] if self.headline in rows else rows[:0]

    @cached_property
    def reference(self) -> ArmKey | None:
        """The dense arm, with which the others are compared, if a trial of it finished."""
        named = [arm for arm in self.groups if arm.name == DENSE]
        return named[0] if len(named) == 1 and len(self.done_in(named[0])) else None

    def find(self, text: str) -> ArmKey:
        """The arm called `text`.

        Args:
            text: A name, or `name@layers` where the name stands for several.

        Raises:
            StudyError: No arm is called that, or several are; the message lists the choices.
        """
        exact = [arm for arm in self.groups if text == arm.address]
        found = exact or [arm for arm in self.groups if text == arm.name]
        if len(found) == 1:
            return found[0]
        addresses = [arm.address for arm in (found or self.groups)]
        if found:
            raise StudyError(
                f"arm {text!r} has several placements; choose from: {', '.join(addresses)}"
            )
        raise StudyError(unknown("arm", text, addresses))


def load_study(folder: str | Path, results: Results | None = None) -> StudyData:
    """Reads a study for `sparseattn.report`; trials that are damaged are left out.

    Args:
        folder: The study's folder.
        results: Its trials, where they have been read and checked already.

    Raises:
        StudyError: It is not a study's folder, or no trial of it has finished.
    """
    store = Store(folder)
    study = Study.load(store.folder)
    trials, _ = study.trials()
    results = collect(store, trials) if results is None else results
    if not results.rows:
        raise StudyError(f"no trial of {folder} has finished; `sparseattn study resume {folder}`")
    table = results.table().to_pandas()
    done = table[table["status"] == "done"]
    main = done["headline"].dropna().iloc[:1]
    declared = study.spec.model_dump(mode="json", exclude={"executor"}, exclude_none=True)

    def predictions(digest: str) -> pd.DataFrame:
        data = io.BytesIO(store.files(digest)["predictions.parquet"])
        frame: pd.DataFrame = parquet.read_table(data).to_pandas()
        return frame

    return StudyData(
        name=study.spec.name,
        question=study.spec.question,
        spec={**declared, "arms": [asdict(arm) for arm in study.arms]},
        rows=table.drop(columns=[ENVIRONMENT]),
        predictions=predictions,
        environments=[json.loads(text) for text in done[ENVIRONMENT].unique()],
        metrics=tuple(dict.fromkeys([*main, *results.metrics])),
        contrasts=study.spec.contrasts,
        planned=len(trials),
        damaged=tuple(results.damaged.values()),
        added=study.added,
        learned_at=study.spec.learned_at,
    )
