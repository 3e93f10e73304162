"""A model that is loaded once, and a study whose texts and names are hostile."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow
import pytest

from sparseattn.app.jobs import Kept
from sparseattn.app.reader import Reader
from sparseattn.models.names import DEFAULT
from sparseattn.plan import Plan
from sparseattn.study.grid import Arm
from sparseattn.study.record import finished
from sparseattn.study.spec import spec_of
from sparseattn.study.store import STUDY, Store
from sparseattn.study.study import Study
from tests.study.fakes import result

#: What must be shown as the text that it is.
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"

EXAMPLES = 40

#: Trials of the arms: how likely a prediction is right, and the sparsity.
ARMS = {"dense": (0.95, 0.0), f"near {HOSTILE}": (0.75, 0.9), "similar": (0.9, 0.8)}


@pytest.fixture(scope="session")
def reader() -> Reader:
    return Reader(DEFAULT)


@pytest.fixture
def kept() -> Kept:
    return Kept(1 << 26)


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "tiny"
    texts = [f"Text {n} says {HOSTILE if n == 3 else 'little'} today." for n in range(EXAMPLES)]
    labels = [("no", "yes")[n % 2] for n in range(EXAMPLES)]
    data = folder.parent / "data.csv"
    with data.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *zip(texts, labels, strict=True)])
    study, store = _study(data), Store(folder)
    store.prepare()
    store.write(STUDY, study.to_json())
    for trial in study.trials()[0]:
        values = trial.model_dump(mode="json")
        store.put(trial.digest, finished(values, trial.digest, _result(trial, labels), b""))
    return folder


def _study(data: Path) -> Study:
    patterns = ["dense", "neighbor(radius=1) | global(cls)", "learned(sparsity=0.8)"]
    spec = spec_of(
        {
            "name": f"tiny {HOSTILE}",
            "question": f"Which {HOSTILE} is needed?",
            "model": DEFAULT,
            "task": {
                "kind": "classification",
                "data": {"files": {"train": str(data), "evaluation": str(data)}},
                "columns": {"text": "text", "label": "label"},
                "labels": ["no", "yes"],
            },
            "seeds": 3,
            "arms": [
                {"name": name, "pattern": pattern}
                for name, pattern in zip(ARMS, patterns, strict=True)
            ],
            "contrasts": {f"Near, {HOSTILE}?": [[list(ARMS)[1], "dense"]]},
        }
    )
    arms = tuple(
        Arm(name, pattern, ":", {}, {}) for name, pattern in zip(ARMS, patterns, strict=True)
    )
    return Study(spec, arms, "fingerprint", {"torch": "1.0"})


def _result(trial, labels):
    right, sparsity = ARMS[trial.arm]
    drawn = np.random.default_rng([trial.seed, len(trial.arm)]).random(EXAMPLES)
    scores = (drawn < right).astype(float)
    other = {"no": "yes", "yes": "no"}
    shown = [a if score else other[a] for a, score in zip(labels, scores, strict=True)]
    made = result(trial.seed, "x")
    changes = {
        "metrics": {"accuracy": float(scores.mean())},
        "sparsity": sparsity,
        "predictions": pyarrow.table(
            {
                "example": [str(n) for n in range(EXAMPLES)],
                "label": labels,
                "prediction": shown,
                "score": scores,
            }
        ),
        "plan": Plan.of("similarity(k=2) | global(cls)").to_json()
        if trial.arm == "similar"
        else None,
    }
    return type(made)(**{**vars(made), **changes})
