"""Made-up studies with the structure of real ones: examples differ in difficulty, runs in luck."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np
import pandas as pd

from sparseattn.report import StudyData

LAYERS = ("3:", ":")
#: Logits lost on the last layers and on all of them.
EFFECTS = {
    "neighbor": (0.05, 0.35),
    "random": (0.12, 0.85),
    "dependency": (0.22, 1.1),
    "similarity": (0.3, 1.5),
}
SPEC: Mapping[str, Any] = {
    "model": "sentence-transformers/all-MiniLM-L6-v2",
    "task": {
        "name": "sst2",
        "kind": "classification",
        "metric": "accuracy",
        "data": {"hub": "nyu-mll/glue"},
        "train": {},
        "evaluation": {},
    },
    "training": {"epochs": 2, "learning_rate": 5e-5, "batch_size": 32, "precision": "bf16"},
}
ENVIRONMENT = {"sparseattn": "0.1.0", "torch": "2.13.0", "device": "cpu", "dtype": "bfloat16"}


def study(
    effects: Mapping[str, tuple[float, ...]] = EFFECTS,
    layers: tuple[str, ...] = LAYERS,
    seeds: int = 3,
    examples: int = 872,
    seed: int = 0,
    failures: int = 0,
) -> StudyData:
    """A study of `dense` and each of `effects` on each of `layers`."""
    draw = np.random.default_rng(seed)
    ease = draw.normal(3.0, 2.0, examples)
    arms = [("dense", "", 0.0)]
    arms += [
        (name, at, lost)
        for name, each in effects.items()
        for at, lost in zip(layers, each, strict=True)
    ]
    rows, kept = [], {}
    for name, at, lost in arms:
        own = ease + draw.normal(0, 0.3, examples) - lost
        for number in range(seeds):
            right = own + draw.normal(0, 0.05) + draw.normal(0, 1, examples) > 0
            rows.append(_row(name, at, number, right, draw))
            kept[rows[-1]["digest"]] = _predictions(right, draw)
    for row in rows[len(rows) - failures :]:
        row |= {"status": "failed", "reason": "loss is nan at step 41", "accuracy": np.nan}
    return StudyData(
        name="patterns and placement",
        question="Which connections can go, and from which layers?",
        spec=SPEC | {"seeds": list(range(seeds))},
        rows=pd.DataFrame(rows),
        predictions=kept.__getitem__,
        metrics=("accuracy", "f1"),
        environments=(ENVIRONMENT,),
    )


def _row(name: str, at: str, number: int, right: Any, draw: np.random.Generator) -> dict[str, Any]:
    share = {"": 0.0, ":": 1.0}.get(at, 0.5)
    inside = 0.0 if not at else 0.80 + 0.01 * (len(name) % 4)
    seconds = draw.normal(48, 2)
    return {
        "digest": sha256(f"{name} {at} {number}".encode()).hexdigest()[:16],
        "arm": name,
        "pattern": f"{name}(...) | global(cls, sep)" if at else "full()",
        "layers": at,
        "seed": number,
        "status": "done",
        "reason": None,
        "headline": "accuracy",
        "accuracy": right.mean(),
        "f1": right.mean() - 0.004,
        "sparsity": share * inside,
        "layer_sparsity": inside if at else np.nan,
        "block_density": 1.1,
        "mean_degree": 24.0 * (1 - share * inside),
        "train_examples": 4000,
        "evaluation_examples": len(right),
        "steps": 250,
        "seconds": seconds,
        "seconds_train": seconds * 0.9,
        "seconds_evaluate": seconds * 0.08,
    }


def _predictions(right: Any, draw: np.random.Generator) -> pd.DataFrame:
    label = np.arange(len(right)) % 2
    return pd.DataFrame(
        {
            "example": [f"dev-{i}" for i in range(len(right))],
            "label": label,
            "prediction": np.where(right, label, 1 - label),
            "score": right.astype(float),
        }
    )


#: The ordinary study of most tests.
DATA = study()


def changed(data: StudyData = DATA, **columns: Any) -> StudyData:
    """A study with other values in some columns."""
    rows = data.rows.assign(**columns)
    metrics = dict.fromkeys([rows["headline"].iloc[0], *data.metrics])
    return replace(data, rows=rows, metrics=tuple(metrics))


def counting(data: StudyData) -> tuple[StudyData, list[str]]:
    """The study, and a list that grows with every digest whose predictions are read."""
    seen: list[str] = []

    def predictions(digest: str) -> pd.DataFrame:
        seen.append(digest)
        return data.predictions(digest)

    return replace(data, predictions=predictions), seen
