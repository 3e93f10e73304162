"""The view *Studies*: arms, contrasts and trials of a study, by the report's own numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from sparseattn.app.masks import heads_of
from sparseattn.degrees.method import is_method
from sparseattn.errors import SparseAttnError, StudyError
from sparseattn.models.load import load_part
from sparseattn.plan import Plan
from sparseattn.report.changed import changed
from sparseattn.report.comparison import Comparison, questions
from sparseattn.report.data import StudyData, load_study
from sparseattn.report.summary import ArmSummary, Summary, summarise
from sparseattn.report.text import points, probability, spell, telling, unit
from sparseattn.study.arms import DENSE
from sparseattn.study.store import Store
from sparseattn.study.study import Study
from sparseattn.tasks.prepare import read_examples

#: Changed examples that are listed.
LISTED = 100

#: Letters of a question's context that are shown.
_CONTEXT = 2000


class OpenStudy:
    """A study's folder; what is read of it is kept.

    Raises:
        StudyError: It is not a study's folder, or no trial of it has finished.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data: StudyData = load_study(folder)

    @property
    def model(self) -> str:
        """The model that was trained."""
        return str(self.data.spec.get("model"))

    @cached_property
    def _summary(self) -> Summary:
        return summarise(self.data)

    @cached_property
    def overview(self) -> dict[str, Any]:
        """The arms: means and intervals of the report, and every trial."""
        data = self.data
        return {
            "name": data.name,
            "question": data.question,
            "model": self.model,
            "metric": data.headline,
            "scale": unit(data.headline),
            "baseline": data.reference.address if data.reference else None,
            "missing": data.missing,
            "hidden": self._summary.hidden,
            "arms": [_arm(each, data.headline) for each in self._summary.arms],
        }

    @cached_property
    def contrasts(self) -> dict[str, Any]:
        """The comparisons that the study declared, and those of each arm with the baseline."""
        asked = questions(self.data)
        return {
            "layers": next((arm.placement for arm in self.data.groups if arm.shared), ""),
            "questions": [
                {
                    "text": each.text,
                    "answer": each.answer,
                    "notes": each.notes,
                    "comparisons": list(map(_comparison, each.comparisons)),
                }
                for each in asked
            ],
            "baseline": [
                _comparison(each.comparison) for each in self._summary.arms if each.comparison
            ],
        }

    @cached_property
    def _examples(self) -> Mapping[str, tuple[str, ...]]:
        """Text, or texts, of each evaluation example by its name."""
        rows = read_examples(Study.load(self.folder).spec.task).evaluation
        columns = [
            rows[name] for name in ("text", "text_pair", "question", "context") if name in rows
        ]
        if "tokens" in rows:
            columns = [[" ".join(words) for words in rows["tokens"]]]
        named = zip(map(str, rows["example"]), zip(*columns, strict=True), strict=True)
        return {name: tuple(text[:_CONTEXT] for text in texts) for name, texts in named}

    @property
    def texts(self) -> list[tuple[str, ...]]:
        """The evaluation texts.

        Raises:
            DataError: The data are not there.
        """
        return list(self._examples.values())

    def trial(self, digest: str) -> dict[str, Any]:
        """A trial: its numbers, its plan by heads, and the examples that changed against dense.

        Raises:
            StudyError: The study has no such trial.
        """
        rows = self.data.rows[self.data.rows["digest"] == digest]
        if rows.empty:
            raise StudyError(f"the study has no trial {digest!r}")
        row = rows.iloc[0].to_dict()
        plan = self._plan(digest, row)
        grid, why = self._grid(plan)
        changed, notices = self._changed(digest, row)
        return {
            "digest": digest,
            "row": row,
            "model": self.model,
            "plan": plan.spelled if plan else None,
            "grid": grid,
            "changed": changed,
            "notices": [*why, *notices],
        }

    def _plan(self, digest: str, row: Mapping[str, Any]) -> Plan | None:
        """What a trial trained under; None if it does not say."""
        files = Store(self.folder).files(digest)
        if "plan.json" in files:
            return Plan.from_json(json.loads(files["plan.json"]))
        pattern = str(row["pattern"])
        if is_method(pattern):
            return None
        if pattern == DENSE:
            return Plan.of("full()")
        whole = pattern.startswith("layer")
        return Plan.of(pattern) if whole else Plan.of(pattern, str(row["layers"]) or ":")

    def _grid(self, plan: Plan | None) -> tuple[dict[str, Any] | None, list[str]]:
        """A plan by heads, or why it is not shown."""
        if plan is None:
            return None, ["the trial keeps no plan"]
        if plan.shape:
            return heads_of(plan, list(plan.shape)), []
        try:
            config = load_part(self.model, "AutoConfig")
            heads = [config.num_attention_heads] * config.num_hidden_layers
            return heads_of(plan, heads), []
        except (SparseAttnError, AttributeError) as error:
            return None, [f"the plan is not shown by heads: {error}"]

    def _changed(self, digest: str, row: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The examples that are predicted otherwise than by the dense trial of the same seed."""
        data = self.data
        if data.task.get("kind") == "regression":
            return {}, ["a number is predicted, so that next to all examples change"]
        dense = data.done_in(data.reference) if data.reference else data.rows[:0]
        same = dense[dense["seed"] == row["seed"]]["digest"]
        if same.empty or row["status"] != "done":
            return {}, ["there is no dense trial of this seed to compare with"]
        other = str(same.iloc[0])
        if other == digest:
            return {}, []
        differing, examples = changed(
            *(data.predictions(each).set_index("example") for each in (digest, other))
        )
        gains = differing["gain"]
        order = differing.loc[gains.abs().sort_values(ascending=False, kind="stable").index]
        try:
            texts: Mapping[str, tuple[str, ...]] = self._examples
            notices = []
        except SparseAttnError as error:
            texts, notices = {}, [f"the texts are not shown: {error}"]
        return {
            "examples": examples,
            "better": int((gains > 0).sum()),
            "worse": int((gains < 0).sum()),
            "other": int((gains == 0).sum()),
            "listed": [
                _example(str(name), each, texts.get(str(name), ()))
                for name, each in order.head(LISTED).iterrows()
            ],
        }, notices


def _arm(each: ArmSummary, metric: str) -> dict[str, Any]:
    mean = each.metrics.get(metric)
    kept = each.rows[["seed", "digest"]].assign(value=each.rows.get(metric, math.nan))
    return {
        "address": each.arm.address,
        "name": each.arm.name,
        "family": each.arm.family,
        "line": each.arm.line,
        "placement": each.arm.placement,
        "words": str(each.arm),
        "sparsity": each.mean("sparsity"),
        "mean": mean.value if mean else None,
        "low": mean.low if mean and mean.telling else None,
        "high": mean.high if mean and mean.telling else None,
        "trials": kept.to_dict("records"),
    }


def _comparison(each: Comparison) -> dict[str, Any]:
    found = each.result
    shown = telling(each.metric, found.low, found.high)
    return {
        "a": str(each.a),
        "b": str(each.b),
        "asked": each.asked,
        "verdict": each.verdict,
        "words": str(each),
        "difference": found.difference,
        "low": found.low if shown else None,
        "high": found.high if shown else None,
        "p": each.p,
        "change": points(each.metric, found.difference),
        "probability": probability(each.p),
    }


def _example(name: str, row: pd.Series, texts: tuple[str, ...]) -> dict[str, Any]:
    return {
        "example": name,
        "label": _word(row["label"]),
        "dense": _word(row["prediction_base"]),
        "here": _word(row["prediction"]),
        "gain": row["gain"],
        "texts": texts,
    }


def _word(value: Any) -> str:
    return spell("loss", value) if isinstance(value, float) else str(value)
