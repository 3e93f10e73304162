from __future__ import annotations

import json

import pytest

from sparseattn.study.trial import TrialSpec
from sparseattn.tasks.spec import TaskSpec
from sparseattn.training.spec import TrainingSpec

TASK = TaskSpec(kind="classification", data={"hub": "some/set"})


def spec(**values) -> TrialSpec:
    return TrialSpec(**{"model": "m", "task": TASK, **values})


def test_the_digest_survives_json():
    given = spec(pattern="neighbor(radius=2)", versions={"torch": "2.13"}, seed=3)
    again = TrialSpec.model_validate_json(json.dumps(given.model_dump(mode="json")))
    assert again == given
    assert again.digest == given.digest
    assert len(given.digest) == 16
    assert set(given.digest) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    "values",
    [
        {"model": "n"},
        {"task": TASK.model_copy(update={"max_length": 64})},
        {"task": TaskSpec(kind="classification", data={"hub": "other"})},
        {"training": TrainingSpec(epochs=1.0)},
        {"training": TrainingSpec(precision="bf16")},
        {"pattern": "self()"},
        {"layers": "6:"},
        {"seed": 1},
        {"start": "fine-tuned"},
        {"pipeline": "other"},
        {"backend": "masked"},
        {"data_fingerprint": "0"},
        {"versions": {"torch": "2.6"}},
    ],
)
def test_what_changes_the_result_changes_the_digest(values):
    assert spec(**values).digest != spec().digest


@pytest.mark.parametrize(
    "values",
    [
        {"arm": "another name"},
        {"training": TrainingSpec(checkpoint_steps=10)},
        {"training": TrainingSpec(report_to=["tensorboard"])},
    ],
)
def test_what_does_not_change_the_result_does_not_change_the_digest(values):
    assert spec(**values).digest == spec().digest


def test_a_fine_tuned_start_is_the_dense_trial_of_the_seed():
    both = {"torch": "2.13", "transformers": "5.23"}
    sparse = spec(
        pattern="dependency()",
        layers="3:",
        arm="parse",
        start="fine-tuned",
        seed=2,
        versions={**both, "spacy": "3.8", "learned degrees": "3"},
    )
    assert sparse.dense.digest == spec(seed=2, versions=both).digest


def test_early_stopping_looks_at_checkpoints():
    one, two = (TrainingSpec(early_stopping=1, checkpoint_steps=n) for n in (1, 2))
    assert spec(training=one).digest != spec(training=two).digest


def test_data_with_a_fingerprint_may_move():
    here, there = (
        TaskSpec(kind="classification", data={"files": {"train": p, "evaluation": p}})
        for p in ("/here/a.csv", "/there/a.csv")
    )
    assert spec(task=here).digest != spec(task=there).digest
    same = [spec(task=task, data_fingerprint="f").digest for task in (here, there)]
    assert same[0] == same[1]


def test_a_model_with_an_identity_may_move():
    here, there, other = (
        [spec(model=model, versions=versions).digest for model in ("org/mpnet", "$MODELS/mpnet")]
        for versions in ({}, {"model": "1"}, {"model": "2"})
    )
    assert here[0] != here[1]
    assert there[0] == there[1]
    assert other[0] == other[1] != there[0]
