"""Every subword of every sentence of the English Web Treebank has the word it belongs to."""

from __future__ import annotations

import pytest

from sparseattn import Annotator
from tests.corpora import shared
from tests.syntax import oracle


def sentences():
    """The raw text of the sentences of the development and test sets."""
    lines = [
        line
        for part in ("dev", "test")
        for line in shared("ud_english_ewt", f"en_ewt-ud-{part}.conllu")
        .read_text(encoding="utf-8")
        .splitlines()
    ]
    return [line.removeprefix("# text = ") for line in lines if line.startswith("# text = ")]


def check(tokenizer, cache, texts):
    encoding = Annotator(tokenizer, cache_dir=cache, tags=True)(texts)
    for index, text in enumerate(texts):
        expected = oracle.columns(text, oracle.spans_of(tokenizer, text))
        assert {name: encoding[name][index] for name in expected} == expected, text
    return sum(map(len, encoding["word_index"]))


def test_a_sample(tokenizer, cache):
    assert check(tokenizer, cache, sentences()[::20]) > 3000


@pytest.mark.slow
def test_all(tokenizer, cache):
    texts = sentences()
    assert len(texts) == 4078
    assert check(tokenizer, cache, texts) > 60_000


@pytest.mark.slow
def test_all_in_one_text_and_in_pairs(wordpiece, cache):
    texts = sentences()
    annotator = Annotator(wordpiece, cache_dir=cache)
    first, second = texts[0::2], texts[1::2]
    pairs = annotator(first, second, truncation=True, max_length=48)
    for index in range(len(first)):
        special = pairs["special_tokens_mask"][index]
        words = pairs["word_index"][index]
        assert [word < 0 for word in words] == [bool(one) for one in special]
