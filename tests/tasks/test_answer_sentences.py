"""The pairs of studies/kinds-answers.yaml."""

import gzip
import importlib
import json
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
CONTEXT = "Ada was born in 1815. She wrote of an engine. It was never built."


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("answer_sentences")


def question(answer, context=CONTEXT):
    at = context.index(answer)
    return {
        "question": f"About {answer}? ",
        "context": context,
        "answers": {"text": [answer], "answer_start": [at]},
    }


def test_a_label_says_whether_the_sentence_holds_the_answer(script):
    rows = [question(answer) for answer in ("1815", "engine", "never")] * 40
    made = list(script.pairs(rows))
    assert len(made) == 120
    for each, row in zip(made, rows, strict=True):
        assert each["sentence"] in CONTEXT
        assert each["question"] == row["question"].strip()
        assert (row["answers"]["text"][0] in each["sentence"]) == bool(each["label"])
    assert 40 < sum(each["label"] for each in made) < 80
    assert made == list(script.pairs(rows))


def test_a_paragraph_of_one_sentence_is_left_out(script):
    assert list(script.pairs([question("1815", "Ada was born in 1815.")])) == []


def test_dev_has_one_question_of_each_paragraph(script, tmp_path, monkeypatch, capsys):
    rows = [question("1815"), question("engine"), question("never", f"Well. {CONTEXT}")]
    for name in ("train_subset", "dev"):
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt") as file:
            file.write("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr(sys, "argv", ["answer_sentences", str(tmp_path), str(tmp_path / "out")])
    script.main()
    written = {name: (tmp_path / "out" / f"{name}.jsonl").read_text() for name in ("train", "dev")}
    assert [len(written[name].splitlines()) for name in ("train", "dev")] == [3, 2]
    assert "train: 3 pairs" in capsys.readouterr().out
