"""What a reader learns of the setting, and the answers on the first screen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sparseattn.report import write_report
from sparseattn.report.contrasts import questions
from sparseattn.report.setting import setting_lines
from tests.report.fake import study

TASK = {
    "kind": "classification",
    "data": {"hub": None, "files": {"train": "a.tsv"}, "train_split": "train"},
    "train": {"count": 4000, "seed": 3},
    "evaluation": {"count": None, "seed": 0},
    "max_length": 64,
    "max_answer": 30,
}
TRAINING = {"epochs": 2.0, "held_out": 0.1, "early_stopping": None}


def told(data, **spec):
    return dict(setting_lines(replace(data, spec={**data.spec, **spec})))


def test_options_that_play_no_part_are_left_out() -> None:
    data = study()
    lines = told(data, task=TASK, training=TRAINING)
    assert lines["Task"] == (
        "kind: classification, data (files (train: a.tsv)), train (count: 4000, seed: 3), "
        "max_length: 64"
    )
    assert lines["Training"] == "epochs: 2.0"


def test_options_that_play_a_part_are_told() -> None:
    task = {**TASK, "kind": "question-answering", "data": {"hub": "squad", "train_split": "train"}}
    lines = told(study(), task=task, training={**TRAINING, "early_stopping": 2})
    for part in ("max_answer: 30", "train_split: train"):
        assert part in lines["Task"]
    assert "held_out: 0.1" in lines["Training"]


def test_texts_that_were_cut_are_counted() -> None:
    data = study()
    cut = replace(data, rows=data.rows.assign(train_cut=0.125, evaluation_cut=0.0))
    assert told(cut)["Data"] == (
        "4,000 training examples (12.5% of the inputs cut), 872 evaluation examples"
    )


@pytest.fixture
def declared():
    pairs = {"Late, or all?": [("random@3:", "random@:")], "Which?": [("dense", "random@3:")]}
    return replace(study(), contrasts=pairs)


def test_questions_are_answered_on_the_first_screen(declared, tmp_path) -> None:
    late, which = questions(declared)
    assert late.answer.startswith("random, layers from 3 on is higher than random, layers all (+")
    assert which.answer == "No difference was found in the one comparison."
    html, text = write_report(declared, tmp_path)[:2]
    for path, setting in ((html, 'id="setting"'), (text, "## Setting")):
        page = path.read_text(encoding="utf-8")
        assert page.index(late.answer.split("(")[0]) < page.index(setting)


def test_stated_sparsities_are_told_from_realised_ones(tmp_path) -> None:
    data = study()
    note = "meet it on the training texts"
    plain = write_report(data, tmp_path / "a")[1].read_text(encoding="utf-8")
    rows = data.rows.assign(pattern="learned(sparsity=0.8)")
    stated = write_report(replace(data, rows=rows), tmp_path / "b")[1].read_text(encoding="utf-8")
    assert note not in plain
    assert note in stated
