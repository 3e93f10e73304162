from __future__ import annotations

from functools import partial

import pytest
from pydantic import ValidationError

from sparseattn.tasks.ready import names, ready
from sparseattn.tasks.spec import DataSpec, Subset, TaskSpec
from sparseattn.training.spec import TrainingSpec


def problem(build) -> str:
    with pytest.raises(ValidationError) as caught:
        build()
    (error,) = caught.value.errors()
    return f"{'.'.join(map(str, error['loc']))}: {error['msg'].removeprefix('Value error, ')}"


RATES = [
    ("1e-4", "learning_rate: expected a number, got the text '1e-4'; remove the quotes"),
    ("fast", "learning_rate: expected a number, got the text 'fast'"),
    (0, "learning_rate: Input should be greater than 0"),
    (float("nan"), "learning_rate: Input should be a finite number"),
]


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        *((partial(TrainingSpec, learning_rate=rate), message) for rate, message in RATES),
        (
            lambda: DataSpec(),
            ": data needs exactly one of hub, files and package; it has none",
        ),
        (
            lambda: DataSpec(hub="a", package="b"),
            ": data needs exactly one of hub, files and package; it has hub and package",
        ),
        (lambda: DataSpec(hub="a", split="b"), "split: Extra inputs are not permitted"),
        (lambda: Subset(count=0), "count: Input should be greater than or equal to 1"),
        (lambda: Subset(count=2.5), "count: Input should be a valid integer"),
        (lambda: Subset(min_words=True), "min_words: Input should be a valid integer"),
        (lambda: TrainingSpec(epochs=1, steps=1), ": a training has epochs or steps, not both"),
        (
            lambda: TrainingSpec(held_out=0.2),
            ": held_out goes with early_stopping, which is not set; leave it out",
        ),
        (lambda: TrainingSpec(warmup=1.0), "warmup: Input should be less than 1"),
        (
            lambda: TrainingSpec(precision="int8"),
            "precision: Input should be 'fp32', 'bf16' or 'fp16'",
        ),
        (
            lambda: DataSpec(files={"train": "a.csv"}),
            ": files needs evaluation: a path, or hold_out in its place",
        ),
    ],
)
def test_values_that_do_not_fit(build, expected):
    assert problem(build) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"kind": "classification", "columns": {"question": "q"}},
            ": a classification task does not read the column 'question'; choose from: text, "
            "text_pair, label, cluster, id",
        ),
        (
            {"kind": "regression", "headline": "accuracy"},
            ": a regression task has no metric 'accuracy'; choose from: pearson, spearman",
        ),
        (
            {"kind": "regression", "labels": ["a", "b"]},
            ": a regression task has no labels; choose from: classification, token-classification",
        ),
        (
            {"kind": "classification", "labels": ["a", "a"]},
            ": labels must be two or more different names, got ('a', 'a')",
        ),
        (
            {"kind": "classification", "stride": 3},
            ": stride is for windows over a context; choose from: question-answering",
        ),
    ],
)
def test_a_task_that_does_not_fit_its_kind(values, expected):
    assert problem(lambda: TaskSpec(data={"hub": "x"}, **values)) == expected


def test_a_training_lasts_three_epochs_unless_told():
    assert TrainingSpec().epochs == 3.0
    assert TrainingSpec(steps=5).epochs is None


@pytest.mark.parametrize("name", names())
def test_ready_made_tasks_are_tasks_and_survive_json(name):
    task = TaskSpec(**ready(name))
    assert TaskSpec.model_validate_json(task.model_dump_json()) == task
    assert hash(task) == hash(TaskSpec(**ready(name)))


def test_changes_to_a_ready_made_task_are_merged():
    made = ready(
        "sst2",
        {
            "data": {"files": {"train": "a.tsv", "evaluation": "b.tsv"}},
            "columns": {"id": "n"},
            "train": {"count": 5},
            "max_length": 64,
        },
    )
    task = TaskSpec(**made)
    assert task.data.hub is None
    assert task.data.files is not None
    assert (task.columns.text, task.columns.id) == ("sentence", "n")
    assert (task.train.count, task.max_length) == (5, 64)
    assert ready("sst2", {"data": {"evaluation_split": "test"}})["data"] == {
        "hub": "nyu-mll/glue",
        "config": "sst2",
        "evaluation_split": "test",
    }


def test_an_unknown_ready_made_task_is_named_with_the_nearest():
    with pytest.raises(
        ValueError, match=r"^unknown ready-made task 'sst' \(did you mean 'sst2'\?\)"
    ):
        ready("sst")
