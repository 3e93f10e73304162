"""Padded batches, and what the Trainer and data loaders make of them."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding

from sparseattn import Annotator, Collator, parse
from sparseattn.annotations import COLUMNS
from sparseattn.errors import AnnotationError
from sparseattn.tokens import TokenBatch

TEXTS = ["She doesn't know.", "No.", "Nobody who was there will ever forget it, I think."]


@pytest.fixture
def examples(wordpiece, cache):
    encoding = Annotator(wordpiece, cache_dir=cache, tags=True)(TEXTS)
    rows = [{name: column[i] for name, column in encoding.items()} for i in range(len(TEXTS))]
    return [{**row, "label": index} for index, row in enumerate(rows)]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("multiple", [None, 8])
def test_annotations_are_padded_with_the_tokens(wordpiece, examples, side, multiple):
    tokenizer = copy.deepcopy(wordpiece)
    tokenizer.padding_side = side
    before = copy.deepcopy(examples)
    batch = Collator(tokenizer, pad_to_multiple_of=multiple)(examples)
    assert examples == before
    assert batch["labels"].tolist() == [0, 1, 2]
    for name in COLUMNS:
        assert batch[name].dtype == torch.int64
        assert batch[name].shape == batch["input_ids"].shape
        for row, real, example in zip(batch[name], batch["attention_mask"], examples, strict=True):
            assert row[real == 1].tolist() == example[name]
            fill = 1 if name == "special_tokens_mask" else -1
            assert (row[real == 0] == fill).all()
    if multiple:
        assert batch["input_ids"].shape[1] % multiple == 0


def test_the_rest_is_what_transformers_makes_of_it(wordpiece, examples):
    rest = [{k: v for k, v in row.items() if k not in COLUMNS} for row in examples]
    expected = DataCollatorWithPadding(wordpiece)(copy.deepcopy(rest))
    batch = Collator(wordpiece)(examples)
    assert set(batch) == {*expected, *COLUMNS}
    for name in expected:
        assert torch.equal(batch[name], expected[name])
    plain_batch = Collator(wordpiece)(rest)
    assert set(plain_batch) == set(expected)


def test_labels_of_texts_and_of_tokens(wordpiece, examples):
    scores = [{**row, "label": float(row["label"])} for row in examples]
    assert Collator(wordpiece)(scores)["labels"].tolist() == [0.0, 1.0, 2.0]
    tagged = [{**row, "labels": [7] * len(row["input_ids"])} for row in examples]
    for row in tagged:
        del row["label"]
    labels = Collator(wordpiece)(tagged)["labels"]
    assert labels[1].tolist() == [7] * 4 + [-100] * (labels.shape[1] - 4)


def test_fractions_of_tokens_stay_fractions(wordpiece):
    rows = [{"input_ids": [5, 6], "weight": [0.25, 0.5]}, {"input_ids": [7], "weight": [1]}]
    assert Collator(wordpiece)(rows)["weight"].tolist() == [[0.25, 0.5], [1.0, 0.0]]


def test_a_column_of_strings_raises_as_in_transformers(wordpiece, examples):
    named = [{**row, "name": "x"} for row in examples]
    with pytest.raises(ValueError, match="name"):
        Collator(wordpiece)(named)


def test_examples_that_do_not_fit_together(wordpiece, examples):
    del examples[1]["head_index"]
    with pytest.raises(AnnotationError) as caught:
        Collator(wordpiece)(examples)
    assert str(caught.value) == ("head_index is in some examples of the batch and not in others")
    examples[1]["head_index"] = [-1, 0, -1]
    with pytest.raises(AnnotationError) as caught:
        Collator(wordpiece)(examples)
    assert str(caught.value) == (
        "head_index has 3 entries for 4 tokens; annotate and tokenise in one call of "
        "sparseattn.Annotator"
    )


@pytest.mark.parametrize("form", [None, "numpy"])
def test_worker_processes(wordpiece, examples, form):
    rows = Dataset.from_list(examples).with_format(form)
    loader = DataLoader(rows, batch_size=2, num_workers=2, collate_fn=Collator(wordpiece))
    expected = [Collator(wordpiece)(examples[:2]), Collator(wordpiece)(examples[2:])]
    for batch, other in zip(loader, expected, strict=True):
        assert all(torch.equal(batch[name], other[name]) for name in other)
    assert pickle.loads(pickle.dumps(Collator(wordpiece))).pad_to_multiple_of is None


def test_a_pattern_reads_the_batch(wordpiece, examples):
    tokens = TokenBatch.of_columns(Collator(wordpiece)(examples))
    allowed = parse("dependency()").rule(tokens).dense(tokens.length)[0, 0]
    names = wordpiece.convert_ids_to_tokens(examples[0]["input_ids"])
    know = names.index("know")
    assert [n for n, one in zip(names, allowed[know], strict=False) if one] == names[1:-1]
    assert not allowed[names.index("she"), names.index("doesn")]
