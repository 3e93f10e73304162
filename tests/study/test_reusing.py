"""Trials of another study, taken over: the same trials, under this study's names, and no others."""

import io

import pytest
from rich.console import Console

from sparseattn.errors import StudyError
from sparseattn.study.folder.loading import load_study
from sparseattn.study.folder.packing import pack
from sparseattn.study.folder.store import Store
from sparseattn.study.runs import session
from sparseattn.study.runs.session import Options
from tests.study import fakes


@pytest.fixture
def other(tmp_path, log):
    """The folder of a finished study: two arms with two seeds, one of which failed."""
    fakes.begin(tmp_path / "other", ["a", "nan"], 2)
    fakes.go_on(tmp_path / "other")
    return tmp_path / "other"


def go_on(folder, *others, monkeypatch):
    """`resume` with trials of others; gives the outcome and what was said."""
    screen = io.StringIO()
    monkeypatch.setattr(session, "_check_fresh", lambda *_: None)
    console = Console(file=screen, width=200)
    outcome = session.resume(folder, Options(trial=fakes.TRIAL, reuse=others), console)
    return outcome, screen.getvalue()


@pytest.mark.parametrize("packed", [False, True])
def test_trials_are_taken_over_and_called_as_they_are_here(other, packed, tmp_path, monkeypatch):
    place = tmp_path / "other.tar.xz" if packed else other
    if packed:
        pack(other, place)
    trials = fakes.begin(tmp_path / "larger", ["first", "second", "third"], 3)
    outcome, said = go_on(tmp_path / "larger", place, monkeypatch=monkeypatch)
    assert f"trials taken over from {place}: 2\n" in said, "those that failed are not"
    assert outcome.run == len(trials) - 2
    rows = load_study(tmp_path / "larger").rows
    assert sorted(rows["arm"]) == ["first"] * 3 + ["second"] * 3 + ["third"] * 3
    for digest in Store(other).finished() & Store(tmp_path / "larger").finished():
        if rows[rows["digest"] == digest]["arm"].item() == "first":
            files = Store(other).files(digest)
            assert Store(tmp_path / "larger").files(digest) == files


def test_what_is_here_is_not_replaced_and_what_is_damaged_not_taken(other, tmp_path, monkeypatch):
    trials = fakes.begin(tmp_path / "s", ["a"], 2)
    (other / "trials" / trials[0].digest / "predictions.parquet").write_bytes(b"cut")
    outcome, said = go_on(tmp_path / "s", other, monkeypatch=monkeypatch)
    assert outcome.run == 1
    assert "predictions.parquet is damaged: 3 bytes instead of" in said
    assert "it is not taken over" in said
    outcome, said = go_on(tmp_path / "s", other, monkeypatch=monkeypatch)
    assert (outcome.run, "other: 0\n" in said) == (0, True)


def test_nothing_in_common_is_said_with_the_reason(other, tmp_path, monkeypatch):
    fakes.begin(tmp_path / "s", ["a"], 1, training={"epochs": 7})
    _, said = go_on(tmp_path / "s", other, monkeypatch=monkeypatch)
    assert "other: 0; training.epochs is 7.0 here and" in said


def test_another_study_that_is_none_is_one_line_and_nothing_is_begun(tmp_path, log):
    fakes.begin(tmp_path / "s", ["a"], 1)
    (tmp_path / "notes.txt").write_text("x")
    for place, why in (("nowhere", "is not a study's folder"), ("notes.txt", "not a packed study")):
        with pytest.raises(StudyError, match=why):
            fakes.go_on(tmp_path / "s", reuse=[tmp_path / place])
    assert Store(tmp_path / "s").finished() == set()
