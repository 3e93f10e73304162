from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval import metrics
from seqeval.metrics.sequence_labeling import get_entities

from sparseattn.errors import DataError
from sparseattn.tasks.entities import entities
from sparseattn.tasks.tagging import IGNORED
from tests.tasks import material
from tests.tasks.material import tokenizer

NAMES = ["O", "B-PER", "I-PER", "B-LOC"]
ROWS = [
    {
        "tokens": ["Wolfgang", "Gottlieb", "saw", "Salzburg"],
        "tags": ["B-PER", "I-PER", "O", "B-LOC"],
    },
    {"tokens": ["nobody", "came"], "tags": ["O", "O"]},
    {"tokens": ["Vienna", "is", "large"], "tags": ["B-LOC", "O", "O"]},
]


prepared_of = partial(material.prepared_of, kind="token-classification", labels=NAMES)


def logits_for(prepared, tags: list[list[str]]) -> np.ndarray:
    """Logits that predict a tag for the first subword of each word, and nonsense elsewhere."""
    length = max(map(len, prepared.evaluation["input_ids"]))
    logits = np.full((len(prepared.evaluation), length, len(NAMES)), -100.0)
    for index, (row, words) in enumerate(
        zip(prepared.evaluation["row"], prepared.evaluation["words"], strict=True)
    ):
        for place, word in enumerate(words):
            logits[index, place, NAMES.index(tags[row][word]) if word >= 0 else 3] = 1.0
    return logits


def test_the_first_subword_carries_the_label(tmp_path):
    prepared = prepared_of(tmp_path, ROWS)
    first = prepared.train[0]
    pieces = tokenizer().convert_ids_to_tokens(first["input_ids"])
    assert pieces == [
        "[CLS]", "wolfgang", "got", "##tl", "##ie", "##b", "saw", "salzburg", "[SEP]",
    ]  # fmt: skip
    x = IGNORED
    assert first["labels"] == [x, 1, 2, x, x, x, 0, 3, x]


def test_entities_are_scored_as_seqeval_does(tmp_path):
    prepared = prepared_of(tmp_path, ROWS)
    predicted = [["B-PER", "O", "O", "B-LOC"], ["O", "O"], ["B-PER", "O", "O"]]
    true = [row["tags"] for row in ROWS]
    scores = prepared.score(logits_for(prepared, predicted))
    # 3 true entities, 3 predicted, 1 of them right.
    assert scores.metrics == pytest.approx({"f1": 1 / 3, "precision": 1 / 3, "recall": 1 / 3})
    assert scores.metrics["f1"] == pytest.approx(metrics.f1_score(true, predicted))
    assert scores.examples["score"].to_pylist() == pytest.approx([0.5, 1.0, 0.0])
    assert scores.examples["label"][0].as_py() == "B-PER I-PER O B-LOC"
    assert scores.examples["prediction"][2].as_py() == "B-PER O O"


TAGS = ["O", *(f"{letter}-{kind}" for letter in "BIES" for kind in ("PER", "NEW-YORK"))]


@given(st.lists(st.sampled_from(TAGS), max_size=9))
def test_entities_are_those_of_seqeval(tags):
    assert entities(tags) == set(get_entities(tags))


def test_bilou_is_iobes_in_other_letters():
    assert entities(["U-PER", "U-PER", "B-LOC", "L-LOC", "I-LOC"]) == {
        ("PER", 0, 0), ("PER", 1, 1), ("LOC", 2, 3), ("LOC", 4, 4),
    }  # fmt: skip


def test_words_that_were_cut_away_count_as_outside(tmp_path):
    rows = [{"tokens": [*(["a"] * 10), "Rome"], "tags": [*(["O"] * 10), "B-LOC"]}]
    prepared = prepared_of(tmp_path, rows, max_length=8)
    assert prepared.counts["evaluation_cut"] == 1.0
    scores = prepared.score(logits_for(prepared, [rows[0]["tags"]]))
    assert scores.metrics == {"f1": 0.0, "precision": 0.0, "recall": 0.0}
    assert scores.examples["prediction"][0].as_py() == " ".join(["O"] * 11)


def test_numbers_are_places_in_labels(tmp_path):
    rows = [{"tokens": ["Rome", "burns"], "tags": [3, 0]}]
    assert prepared_of(tmp_path, rows).rows["tags"] == [[3, 0]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"tokens": ["a", "b"], "tags": ["O"]},
            "row 1 of the train split, column 'tags': expected 2 tags, got ['O']",
        ),
        (
            {"tokens": ["a"], "tags": ["B-ORG"]},
            "row 1 of the train split, column 'tags': label 'B-ORG' does not fit; choose from: O, "
            "B-PER, I-PER, B-LOC (or 0 to 3)",
        ),
        (
            {"tokens": [], "tags": []},
            "row 1 of the train split, column 'tokens': expected words, got []",
        ),
    ],
)
def test_a_sentence_that_cannot_be_used(tmp_path, row, message):
    with pytest.raises(DataError) as caught:
        prepared_of(tmp_path, [ROWS[0], row])
    assert str(caught.value) == message


def test_tags_that_name_no_entities(tmp_path):
    rows = [{"tokens": ["a", "b"], "tags": ["NOUN", "VERB"]}]
    with pytest.raises(DataError, match=r"tags must be 'O' or begin with B-, .*: NOUN, VERB "):
        prepared_of(tmp_path, rows, labels=None)
