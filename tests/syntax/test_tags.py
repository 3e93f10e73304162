"""Parts of speech: those of spaCy's whole pipeline, kept beside the parses without them."""

from __future__ import annotations

import copy

import pytest

from sparseattn import Annotator
from sparseattn.annotations import TAGS
from sparseattn.syntax import Collator, pipeline
from sparseattn.syntax.parse import Parse
from sparseattn.syntax.pipeline import DEFAULT, Pipeline
from tests.syntax import oracle
from tests.syntax.sentences import BLANK, TRICKY

CONTEXT = (
    "The committee met on Monday. Its chair, who hadn't slept, left early; the others stayed. "
    "They voted twice, and twice they failed! A well-known newspaper reported it the next day. "
) * 3


@pytest.fixture(scope="module")
def tagging(tokenizer, cache):
    return Annotator(tokenizer, cache_dir=cache, tags=True)


@pytest.fixture(scope="module")
def plain_tagging(wordpiece, cache):
    return Annotator(wordpiece, cache_dir=cache, tags=True)


def names(indices):
    """Tags by their names; None for -1."""
    return [None if index < 0 else TAGS[index] for index in indices]


def expected(tokenizer, text):
    words = oracle.parsed(text)
    spans = oracle.spans_of(tokenizer, text)
    return [None if s is None else oracle.tags(text)[oracle.word_of(s, words)] for s in spans]


def test_the_tags_are_those_of_universal_dependencies():
    from spacy.parts_of_speech import IDS

    assert {tag.upper() for tag in TAGS} == set(IDS) - {"", "CONJ", "EOL", "SPACE"}
    assert list(TAGS) == sorted(TAGS)


@pytest.mark.parametrize("text", [*TRICKY, *BLANK, ""], ids=lambda text: ascii(text[:24]))
def test_every_token_has_the_tag_that_spacy_gives_to_its_word(tagging, text):
    assert names(tagging(text)["tag_index"]) == expected(tagging.tokenizer, text)


def test_nothing_else_changes(tagging, annotator):
    with_tags = dict(tagging(TRICKY))
    assert with_tags.pop("tag_index")
    assert with_tags == dict(annotator(TRICKY))


def test_a_sentence_by_hand(plain_tagging):
    encoding = plain_tagging("Anna doesn't like unaffordable houses.")
    assert list(zip(encoding.tokens(), names(encoding["tag_index"]), strict=True)) == [
        ("[CLS]", None),
        ("anna", "propn"),
        ("doesn", "aux"),
        ("'", "part"),
        ("t", "part"),
        ("like", "verb"),
        ("una", "adj"),
        ("##ff", "adj"),
        ("##ord", "adj"),
        ("##able", "adj"),
        ("houses", "noun"),
        (".", "punct"),
        ("[SEP]", None),
    ]


def test_pairs(plain_tagging):
    pair = plain_tagging(TRICKY, TRICKY[::-1])["tag_index"]
    single = plain_tagging(TRICKY)["tag_index"]
    assert pair == [a + b[1:] for a, b in zip(single, single[::-1], strict=True)]


@pytest.mark.parametrize("side", ["left", "right"])
def test_truncated_and_padded(wordpiece, cache, side):
    tokenizer = copy.deepcopy(wordpiece)
    tokenizer.truncation_side = tokenizer.padding_side = side
    annotator = Annotator(tokenizer, cache_dir=cache, tags=True)
    rows = annotator([CONTEXT, "Short."], truncation=True, max_length=20, add_special_tokens=False)
    whole = names(annotator(CONTEXT, add_special_tokens=False)["tag_index"])
    kept = whole[-20:] if side == "left" else whole[:20]
    assert names(rows["tag_index"][0]) == kept
    examples = [{name: rows[name][i] for name in rows} for i in range(2)]
    padded = names(Collator(tokenizer)(examples)["tag_index"][1].tolist())
    short = names(rows["tag_index"][1])
    blank = [None] * (20 - len(short))
    assert padded == (blank + short if side == "left" else short + blank)


def test_given_words(tagging):
    words = ["Don't", "stop", " ", "re-reading", "New York", "'s", "👩‍👩‍👧", "café", "!"]
    solid = [word for word in words if word.strip()]
    import spacy

    document = oracle.parser()(spacy.tokens.Doc(oracle.parser().vocab, words=solid))
    encoding = tagging(words, is_split_into_words=True)
    assert names(encoding["tag_index"]) == [
        None if word < 0 else document[word].pos_.lower() for word in encoding["word_index"]
    ]


def test_a_text_longer_than_a_piece(wordpiece, tmp_path, monkeypatch):
    text = "The chair left early. Nobody cared.\n\n" * 6
    monkeypatch.setattr(pipeline.pieces, "__defaults__", (80,))
    cut = Annotator(wordpiece, cache_dir=tmp_path, tags=True)(text)
    assert names(cut["tag_index"]) == expected(wordpiece, text)


def test_parses_with_and_without_tags_are_kept_apart(wordpiece, tmp_path, monkeypatch):
    real, parsed = Pipeline.parse, []
    monkeypatch.setattr(
        Pipeline, "parse", lambda self, texts: parsed.append(self.tags) or real(self, texts)
    )
    plain, tagged = (Annotator(wordpiece, cache_dir=tmp_path, tags=tags) for tags in (False, True))
    before = dict(plain(TRICKY))
    tags = dict(tagged(TRICKY))
    assert parsed == [False, True]
    assert dict(plain(TRICKY)) == before
    assert dict(tagged(TRICKY)) == tags
    assert parsed == [False, True]


def test_entries_without_tags_are_found_as_before_there_were_any():
    """The key and the bytes that a version without tags wrote."""
    found = Pipeline("en", "1").key("A text.")
    assert found.hex() == "4582c0d65d5636df2d4033c0efd38779"
    parse = Parse.from_bytes(bytes(range(32)))
    assert parse.tags is None
    assert (len(parse), parse.to_bytes()) == (2, bytes(range(32)))
    assert Parse.from_bytes(bytes(40), tagged=True).to_bytes() == bytes(40)


@pytest.mark.parametrize("text", TRICKY[:4])
def test_what_is_switched_off_does_not_change_the_tags(text):
    (parse,) = Pipeline.find(DEFAULT, tags=True).parse([text])
    assert names(parse.tags) == oracle.tags(text)
    assert parse.heads.tolist() == [word[3] for word in oracle.parsed(text)]
