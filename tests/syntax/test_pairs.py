"""Pairs, truncation, windows and given words."""

from __future__ import annotations

import copy

import pytest
from datasets import Dataset

from sparseattn import Annotator
from sparseattn.annotations import TAGS
from tests.syntax import oracle
from tests.syntax.sentences import TRICKY

QUESTION = "Who didn't leave? And why?"
CONTEXT = (
    "The committee met on Monday. Its chair, who hadn't slept, left early; the others stayed. "
    "They voted twice, and twice they failed! A well-known newspaper reported it the next day. "
) * 3
COLUMNS = ["word_index", "sentence_index", "head_index", "tag_index"]


def by_span(tokenizer, annotator, first, second):
    """(side, span) -> the annotations that the untruncated pair has there."""
    encoding = annotator(first, second)
    offsets = encoding.encodings[0].offsets
    rows = zip(encoding.sequence_ids(), offsets, *(encoding[name] for name in COLUMNS), strict=True)
    return {(side, span): values for side, span, *values in rows}


def test_the_second_text_is_parsed_apart_and_numbered_after_the_first(plain):
    encoding = plain(QUESTION, CONTEXT)
    words, sentences = len(oracle.parsed(QUESTION)), oracle.parsed(QUESTION)[-1][2] + 1
    first, second = plain(QUESTION), plain(CONTEXT)
    for name, offset in zip(COLUMNS, (words, sentences, words, 0), strict=True):
        moved = [value + offset for value in second[name][1:-1]]
        assert encoding[name] == [*first[name], *moved, -1]


@pytest.mark.parametrize("pair", [("", "a b"), ("a b", ""), ("", "")])
def test_an_empty_half(plain, pair):
    encoding = plain(*pair)
    special = [bool(bit) for bit in encoding["special_tokens_mask"]]
    assert [word < 0 for word in encoding["word_index"]] == special
    assert len({word for word in encoding["word_index"] if word >= 0}) == special.count(False)


def test_windows_have_what_the_whole_has(plain):
    tokenizer = plain.tokenizer
    whole = by_span(tokenizer, plain, QUESTION, CONTEXT)
    encoding = plain(
        [QUESTION, "What?"],
        [CONTEXT, "That."],
        truncation="only_second",
        max_length=32,
        stride=8,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    windows = encoding["overflow_to_sample_mapping"].count(0)
    assert windows > 4
    assert len(encoding["word_index"]) == windows + 1
    seen = set()
    for index in range(windows):
        sides, offsets = encoding.sequence_ids(index), encoding["offset_mapping"][index]
        for place, (side, span) in enumerate(zip(sides, offsets, strict=True)):
            values = [encoding[name][index][place] for name in COLUMNS]
            assert values == ([-1] * 4 if side is None else whole[side, span])
            seen.add((side, span))
    assert seen >= set(whole) - {(None, (0, 0))}
    assert encoding["word_index"][-1] == plain("What?", "That.")["word_index"]


def test_windows_counted_from_the_end(wordpiece, cache):
    tokenizer = copy.deepcopy(wordpiece)
    tokenizer.truncation_side = "left"
    options = {"truncation": True, "max_length": 16, "add_special_tokens": False}
    windows = Annotator(tokenizer, cache_dir=cache, tags=True)(
        CONTEXT * 4, return_overflowing_tokens=True, **options
    )
    whole = Annotator(wordpiece, cache_dir=cache, tags=True)(CONTEXT * 4, add_special_tokens=False)
    for name in COLUMNS:
        assert [v for row in windows[name][::-1] for v in row] == whole[name]


def test_windows_of_one_text_and_in_dataset_map(plain):
    options = {"truncation": True, "max_length": 16, "return_overflowing_tokens": True}
    encoding = plain(CONTEXT, **options)
    assert len(encoding["head_index"]) == len(encoding["input_ids"]) > 4
    assert encoding["word_index"][1][1] == encoding["word_index"][0][-2] + 1
    rows = Dataset.from_dict({"text": [CONTEXT, "Short."]})
    mapped = rows.map(
        lambda batch: plain(batch["text"], **options), batched=True, remove_columns=["text"]
    )
    assert mapped["head_index"][:] == plain([CONTEXT, "Short."], **options)["head_index"]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("limit", [3, 10, 33])
def test_truncation_keeps_the_annotations_of_what_it_leaves(wordpiece, cache, side, limit):
    tokenizer = copy.deepcopy(wordpiece)
    tokenizer.truncation_side = side
    annotator = Annotator(tokenizer, cache_dir=cache, tags=True)
    whole = annotator(CONTEXT, add_special_tokens=False)
    encoding = annotator(CONTEXT, truncation=True, max_length=limit, add_special_tokens=False)
    kept = slice(-limit, None) if side == "left" else slice(limit)
    for name in ("input_ids", *COLUMNS):
        assert encoding[name] == whole[name][kept]


def test_given_words_are_the_words(annotator):
    words = ["Don't", "stop", "re-reading", "New York", "'s", "👩‍👩‍👧", "café", "!"]
    encoding = annotator(words, is_split_into_words=True)
    special = encoding["special_tokens_mask"]
    chosen = [-1 if bit else w for w, bit in zip(encoding.word_ids(), special, strict=True)]
    assert encoding["word_index"] == chosen
    assert set(range(len(words))) <= set(chosen)
    import spacy

    document = spacy.tokens.Doc(oracle.parser().vocab, words=words)
    parsed = oracle.parser()(document)
    for name, found in (
        ("head_index", [token.head.i for token in parsed]),
        ("tag_index", [TAGS.index(token.pos_.lower()) for token in parsed]),
    ):
        assert encoding[name] == [-1 if w < 0 else found[w] for w in chosen]


def test_given_words_in_batches_pairs_and_windows(plain):
    first, second = [["Who", "left", "?"], ["Me"]], [["She", "did", "n't", "."] * 6, ["Yes", "!"]]
    encoding = plain(first, second, is_split_into_words=True)
    assert encoding["word_index"][1] == [-1, 0, -1, 1, 2, -1]
    windows = plain(
        first,
        second,
        is_split_into_words=True,
        truncation="only_second",
        max_length=16,
        return_overflowing_tokens=True,
    )
    seen = [
        w
        for i in range(windows["overflow_to_sample_mapping"].count(0))
        for w in windows["word_index"][i]
    ]
    assert set(seen) == set(encoding["word_index"][0])
    assert plain.columns(windows, first, second)["head_index"] == windows["head_index"]


def test_blank_words_are_not_counted(plain, bytelevel, cache):
    encoding = plain(["", "a", " ", "b"], is_split_into_words=True)
    assert encoding["word_index"] == [-1, 0, 1, -1]
    assert plain([[], ["a"]], is_split_into_words=True)["word_index"] == [[-1, -1], [-1, 0, -1]]
    blank = Annotator(bytelevel, cache_dir=cache)(["a", " ", "b"], is_split_into_words=True)
    words = [word for word in blank["word_index"] if word >= 0]
    assert words == sorted(words)
    assert set(words) == {0, 1}


def test_pairs_with_every_tokenizer(annotator):
    encoding = annotator(TRICKY, TRICKY[::-1])
    for index, (first, second) in enumerate(zip(TRICKY, TRICKY[::-1], strict=True)):
        offset = len(oracle.parsed(first))
        sides = encoding.sequence_ids(index)
        words = encoding["word_index"][index]
        left = [w for w, side in zip(words, sides, strict=True) if side == 0]
        right = [w - offset for w, side in zip(words, sides, strict=True) if side == 1]
        assert left == [w for w in annotator(first)["word_index"] if w >= 0]
        assert right == [w for w in annotator(second)["word_index"] if w >= 0]
