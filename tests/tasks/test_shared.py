"""The published data sets, as files, through the ready-made tasks."""

from __future__ import annotations

import pytest

from sparseattn.tasks.prepare import prepare, read_examples
from sparseattn.tasks.ready import ready
from sparseattn.tasks.spec import TaskSpec
from tests.corpora import shared
from tests.tasks.material import tokenizer
from tests.tasks.test_questions import oracle

pytestmark = pytest.mark.slow

FILES = {
    "sst2": ("sst2/train.tsv", "sst2/dev.tsv"),
    "mrpc": ("mrpc/train.jsonl", "mrpc/dev.jsonl"),
    "rte": ("rte/train.tsv", "rte/dev.tsv"),
    "squad": ("squad/train_subset.jsonl.gz", "squad/dev.jsonl.gz"),
    "imdb": ("imdb/train.jsonl.gz", "imdb/test.jsonl.gz"),
}


def task(name: str, **changes) -> TaskSpec:
    train, evaluation = (str(shared(*path.split("/"))) for path in FILES[name])
    files = {"train": train, "evaluation": evaluation}
    return TaskSpec(**ready(name, {"data": {"files": files}, **changes}))


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("sst2", (67349, 872)),
        ("mrpc", (3668, 408)),
        ("rte", (2490, 277)),
        ("squad", (11264, 10570)),
        ("imdb", (8000, 4000)),
    ],
)
def test_every_published_example_is_read(name, rows):
    assert read_examples(task(name)).counts == rows


@pytest.mark.parametrize("name", ["sst2", "mrpc", "rte", "imdb"])
def test_labels_become_the_numbers_that_the_hub_gives_them(name, tmp_path):
    part = {"count": 200}
    prepared = prepare(task(name, train=part, evaluation=part), tokenizer(), cache_dir=tmp_path)
    text = prepared.rows["text"]
    labels = prepared.rows["label"]
    share = sum(labels) / len(labels)
    # RuleCache of the full development sets: the share of class 1.
    expected = {"sst2": 0.509, "mrpc": 0.684, "rte": 0.473, "imdb": 0.5}[name]
    assert share == pytest.approx(expected, abs=0.12)
    assert all(isinstance(one, str) and one for one in text)
    assert set(labels) == {0, 1}


def test_min_words_before_count(tmp_path):
    chosen = task("sst2", train={"count": 4000, "min_words": 8}, evaluation={"count": 50})
    prepared = prepare(chosen, tokenizer(), cache_dir=tmp_path)
    assert len(prepared.train) == 4000
    # 8 words and two special tokens.
    assert min(prepared.train["length"]) >= 10


def test_squad_windows_find_every_answer(tmp_path):
    chosen = task(
        "squad", train={"count": 50}, evaluation={"count": 300}, max_length=192, stride=64
    )
    prepared = prepare(chosen, tokenizer(), cache_dir=tmp_path)
    assert prepared.counts["evaluation_inputs"] > 300
    scores = prepared.score(oracle(prepared))
    # A subword may reach beyond the answer, as in "1980s" for "1980".
    assert scores.metrics["exact_match"] > 0.99
    assert scores.metrics["f1"] > 0.99
