"""What a reader learns of the setting, and the answers on the first screen."""

from __future__ import annotations

from dataclasses import replace

from sparseattn.report import questions, write_report
from sparseattn.report.setting import setting_lines
from tests.report.fake import DATA, changed

TASK = {
    "kind": "classification",
    "data": {"hub": None, "files": {"train": "a.tsv"}, "train_split": "train"},
    "train": {"count": 4000, "seed": 3},
    "evaluation": {"count": None, "seed": 0},
    "max_length": 64,
    "max_answer": 30,
}
TRAINING = {"epochs": 2.0, "held_out": 0.1}


def lines_of(data, **spec):
    return dict(setting_lines(replace(data, spec={**data.spec, **spec})))


def test_options_that_play_no_part_are_left_out() -> None:
    lines = lines_of(DATA, task=TASK, training=TRAINING)
    assert lines["Task"] == (
        "kind: classification, data (files (train: a.tsv)), train (count: 4000, seed: 3), "
        "max_length: 64"
    )
    assert lines["Training"] == "epochs: 2.0"


def test_options_that_play_a_part_are_lines_of() -> None:
    task = {**TASK, "kind": "question-answering", "data": {"hub": "squad", "train_split": "train"}}
    lines = lines_of(DATA, task=task, training={**TRAINING, "early_stopping": 2})
    for part in ("max_answer: 30", "train_split: train"):
        assert part in lines["Task"]
    assert "held_out: 0.1" in lines["Training"]


def test_texts_that_were_cut_are_counted() -> None:
    assert lines_of(changed(train_cut=0.125, evaluation_cut=0.0))["Data"] == (
        "4,000 training examples (12.5% of the inputs cut), 872 evaluation examples"
    )


def test_questions_are_answered_on_the_first_screen(undrawn, tmp_path) -> None:
    declared = replace(DATA, contrasts={"Late, or all?": [("random@3:", "random@:")]})
    (late,) = questions(declared)
    html, text = write_report(declared, tmp_path)[:2]
    for path, setting in ((html, 'id="setting"'), (text, "## Setting")):
        page = path.read_text(encoding="utf-8")
        assert page.index(late.answer.split("(")[0]) < page.index(setting)


def test_target_sparsities_are_distinguished_from_measured_ones(undrawn, tmp_path) -> None:
    for data, targets in ((DATA, False), (changed(pattern="learned(sparsity=0.8)"), True)):
        text = write_report(data, tmp_path)[1].read_text(encoding="utf-8")
        assert ("A target sparsity holds over the training texts." in text) == targets
