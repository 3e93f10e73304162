"""Parts of speech: those of spaCy's whole pipeline, kept beside the parses without them."""

from __future__ import annotations

from sparseattn import Annotator
from sparseattn.annotations import TAGS
from sparseattn.syntax.parse import Parse
from sparseattn.syntax.pipeline import Pipeline
from tests.syntax.sentences import TRICKY


def names(indices):
    """Tags by their names; None for -1."""
    return [None if index < 0 else TAGS[index] for index in indices]


def test_the_tags_are_those_of_universal_dependencies():
    from spacy.parts_of_speech import IDS

    assert {tag.upper() for tag in TAGS} == set(IDS) - {"", "CONJ", "EOL", "SPACE"}
    assert list(TAGS) == sorted(TAGS)


def test_nothing_else_changes(annotator, cache):
    with_tags = dict(annotator(TRICKY))
    assert with_tags.pop("tag_index")
    assert with_tags == dict(Annotator(annotator.tokenizer, cache_dir=cache)(TRICKY))


def test_a_sentence_by_hand(plain):
    encoding = plain("Anna doesn't like unaffordable houses.")
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
