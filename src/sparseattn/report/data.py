"""A finished (or half finished) study, as the report sees it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pandas as pd

from sparseattn.errors import SparseAttnError, StudyError, unknown
from sparseattn.selection import select_indices
from sparseattn.study.columns import COLUMNS

__all__ = ["Arm", "StudyData"]

#: Selections of layers that have a plain name.
_PLACEMENTS = (
    ("", "none"),
    (":", "all"),
    (r"-(\d+):", r"last \1"),
    (r"(\d+):", r"from \1 on"),
    (r":(\d+)", r"first \1"),
)

_NEEDED = ("digest", "arm", "layers", "seed", "status", "headline")


@dataclass(frozen=True)
class Arm:
    """What is varied: a named setting on a choice of layers.

    Attributes:
        name: The name that the study's spec gives it.
        layers: The layers that carry its pattern, such as `"3:"`; `":"` is all of them and empty
            is none.
    """

    name: str
    layers: str = ""

    @property
    def address(self) -> str:
        """How to name it on the command line: `name@layers`, or `name` without layers."""
        return f"{self.name}@{self.layers}" if self.layers else self.name

    @property
    def family(self) -> str:
        """Its name without its place in a grid.

        >>> Arm("learned s=0.7 k=2").family
        'learned'
        """
        return re.sub(r"( \w+=\S+)+$", "", self.name)

    @property
    def placement(self) -> str:
        """Its layers in words; layers are counted from 0."""
        for spelled, words in _PLACEMENTS:
            if found := re.fullmatch(spelled, self.layers):
                return found.expand(words)
        return self.layers

    def __str__(self) -> str:
        """Its name and layers in words."""
        return f"{self.name}, layers {self.placement}" if self.layers else self.name


@dataclass(frozen=True)
class StudyData:
    """A study's results.

    Attributes:
        name: What it is called.
        question: What it asks, in a sentence.
        spec: The resolved spec as plain values; `model`, `task` and `training` are shown.
        rows: A row a trial: digest, arm, layers, seed, status ("done" or "failed"), headline (the
            name of the main metric), a column a metric, and what else of `COLUMNS` is known.
        predictions: Gives a trial's predictions by its digest: a row an example, with `example`,
            `label`, `prediction` and `score`. Called only for what is compared.
        environments: Versions, devices and the like; different ones are shown apart.
        baseline: The arm that the others are compared with, by name or address.
        counted_over: What sparsity is counted over, in words.
        metrics: The columns that hold metrics; found from their types if not given.
        contrasts: For each question, the pairs of arms that the study set out to compare, each a
            name or `name@layers`.
        planned: Trials of the study, those that have not run included; None if unknown.
        damaged: What is wrong with trials that could not be read.
    """

    name: str
    question: str
    spec: Mapping[str, Any]
    rows: pd.DataFrame
    predictions: Callable[[str], pd.DataFrame]
    environments: Sequence[Mapping[str, Any]] = ()
    baseline: str = "dense"
    counted_over: str = "pairs of real tokens of the evaluation examples, all layers and heads"
    metrics: tuple[str, ...] = field(default=())
    contrasts: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    planned: int | None = None
    damaged: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks the table and finds the metrics.

        Raises:
            StudyError: A column is missing, or the trials do not share a main metric.
        """
        missing = [column for column in _NEEDED if column not in self.rows]
        if missing:
            have = ", ".join(map(str, self.rows.columns)) or "(none)"
            raise StudyError(f"results lack the columns {', '.join(missing)}; they have: {have}")
        rows = self.rows.reset_index(drop=True)
        rows["layers"] = rows["layers"].astype(object).where(rows["layers"].notna(), "").astype(str)
        rows["arm"] = rows["arm"].astype(str)
        object.__setattr__(self, "rows", rows)
        main = [self.headline] if self.headline in rows else []
        metrics = dict.fromkeys([*main, *(self.metrics or self._find_metrics())])
        object.__setattr__(self, "metrics", tuple(metrics))

    def _find_metrics(self) -> list[str]:
        numeric = map(str, self.rows.select_dtypes("number").columns)
        return [c for c in numeric if c not in COLUMNS and not c.startswith("seconds")]

    @cached_property
    def headline(self) -> str:
        """The name of the main metric; empty if no trial has one."""
        names = [str(name) for name in self.rows["headline"].dropna().unique() if str(name)]
        if len(names) > 1:
            raise StudyError(f"trials have different main metrics: {', '.join(names)}")
        return names[0] if names else ""

    @cached_property
    def done(self) -> pd.DataFrame:
        """The trials that finished."""
        return self.rows[self.rows["status"] == "done"]

    @cached_property
    def failed(self) -> pd.DataFrame:
        """The trials that did not."""
        return self.rows[self.rows["status"] == "failed"]

    @property
    def lacking(self) -> str:
        """What is not there, in a sentence; empty for a whole study."""
        absent = max(0, (self.planned or 0) - len(self.rows) - len(self.damaged))
        parts = [f"{absent:,} have not run"] if absent else []
        parts += [f"{len(self.damaged):,} are damaged"] if self.damaged else []
        return f"Of {self.planned:,} trials {' and '.join(parts)}." if parts else ""

    def only(self, seeds: str) -> StudyData:
        """The same study with some of its seeds alone, to look at those that nobody saw before.

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
    def groups(self) -> dict[Arm, pd.DataFrame]:
        """Every arm's rows: the baseline first, the others in the order of the table."""
        found = {
            Arm(str(name), str(layers)): rows
            for (name, layers), rows in self.rows.groupby(["arm", "layers"], sort=False)
        }
        first = [arm for arm in found if self.baseline in (arm.name, arm.address)]
        return {arm: found[arm] for arm in dict.fromkeys([*first, *found])}

    def done_in(self, arm: Arm) -> pd.DataFrame:
        """The finished trials of an arm that have the main metric."""
        rows = self.groups[arm]
        done = rows["status"] == "done"
        return rows[done & rows[self.headline].notna()] if self.headline in rows else rows[:0]

    @cached_property
    def reference(self) -> Arm | None:
        """The baseline, if the study has it in one placement and a trial of it finished."""
        found = [arm for arm in self.groups if self.baseline in (arm.name, arm.address)]
        return found[0] if len(found) == 1 and len(self.done_in(found[0])) else None

    def find(self, text: str) -> Arm:
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
