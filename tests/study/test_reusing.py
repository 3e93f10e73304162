"""Trials of another study, taken over: the same trials, under this study's names, and no others."""

import io

import pytest
from rich.console import Console

from sparseattn.errors import StudyError
from sparseattn.report.data import load_study
from sparseattn.study import record, session
from sparseattn.study.archive import pack
from sparseattn.study.session import Options
from sparseattn.study.store import Store
from tests.study import fakes


@pytest.fixture
def other(tmp_path, log, in_process):
    """The folder of a finished study: two arms with two seeds, one of which failed."""
    fakes.begin(tmp_path / "other", ["a", "nan"], 2)
    fakes.go_on(tmp_path / "other")
    return tmp_path / "other"


def go_on(folder, *others, monkeypatch):
    """`resume` with trials of others; gives the outcome and what was said."""
    screen = io.StringIO()
    monkeypatch.setattr(session, "_check_fresh", lambda *_: None)
    console = Console(file=screen, width=200)
    outcome = session.resume(folder, Options(trial=fakes.TRIAL, import_trials=others), console)
    return outcome, screen.getvalue()


@pytest.mark.parametrize("packed", [False, True])
def test_trials_are_taken_over_and_called_as_they_are_here(other, packed, tmp_path, monkeypatch):
    place = tmp_path / "other.tar.xz" if packed else other
    if packed:
        pack(other, place)
    trials = fakes.begin(tmp_path / "larger", ["first", "second", "third"], 3)
    outcome, said = go_on(tmp_path / "larger", place, monkeypatch=monkeypatch)
    assert f"trials taken over from {place}: 2; 2 failed there\n" in said
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
    assert "other: 1; 1 damaged there\n" in said
    fakes.begin(tmp_path / "t", ["a", "b"], 2)
    go_on(tmp_path / "t", tmp_path / "s", monkeypatch=monkeypatch)
    here = Store(tmp_path / "t").files(trials[1].digest)
    fakes.begin(tmp_path / "u", ["a", "b"], 3)
    _, said = go_on(tmp_path / "u", tmp_path / "s", tmp_path / "t", monkeypatch=monkeypatch)
    assert f"{tmp_path}/s: 2\n" in said
    assert f"{tmp_path}/t: 2; 2 here already\n" in said
    assert Store(tmp_path / "u").files(trials[1].digest) == here


def test_what_failed_or_is_damaged_here_is_replaced(other, tmp_path, monkeypatch):
    trials = fakes.begin(tmp_path / "s", ["nan", "b"], 2)
    fakes.go_on(tmp_path / "s")
    first, *_, last = trials
    assert Store(tmp_path / "s").read(first.digest)["status"] == "failed"
    (tmp_path / "s" / "trials" / last.digest / "log.jsonl").write_bytes(b"cut")
    fakes.begin(tmp_path / "good", ["a", "b"], 2)
    fakes.go_on(tmp_path / "good")
    outcome, said = go_on(tmp_path / "s", tmp_path / "good", monkeypatch=monkeypatch)
    assert f"{tmp_path}/good: 3; 1 here already\n" in said
    assert outcome.run == 0
    assert {Store(tmp_path / "s").read(trial.digest)["status"] for trial in trials} == {"done"}


def test_trials_that_ran_with_other_packages_are_left_there(other, tmp_path, monkeypatch):
    made = fakes.result

    def result(seed, arm=""):
        found = made(seed, arm)
        found.environment["torch"] = "0.9+cpu"
        return found

    trials = fakes.begin(tmp_path / "s", ["a"], 1)
    files = record.finished(
        trials[0].model_dump(mode="json"), trials[0].digest, result(0, "a"), b""
    )
    Store(tmp_path / "s").put(trials[0].digest, files)
    fakes.begin(tmp_path / "t", ["a"], 1)
    outcome, said = go_on(tmp_path / "t", tmp_path / "s", monkeypatch=monkeypatch)
    assert "s: 0; 1 run with other packages there\n" in said
    assert outcome.run == 1


def test_nothing_in_common_is_said_with_the_reason(other, tmp_path, monkeypatch):
    fakes.begin(tmp_path / "s", ["a"], 1, training={"epochs": 7})
    _, said = go_on(tmp_path / "s", other, monkeypatch=monkeypatch)
    assert "other: 0; training.epochs is 7.0 here and" in said
    fakes.begin(tmp_path / "t", ["x", "y", "a"], 1)
    fakes.begin(tmp_path / "u", ["a"], 1)
    fakes.go_on(tmp_path / "u")
    (tmp_path / "u" / "trials").rename(tmp_path / "away")
    _, said = go_on(tmp_path / "t", tmp_path / "u", monkeypatch=monkeypatch)
    assert "u: 0; its arms and seeds are others" in said


def test_another_study_that_is_none_is_one_line_and_nothing_is_begun(tmp_path, log):
    fakes.begin(tmp_path / "s", ["a"], 1)
    (tmp_path / "notes.txt").write_text("x")
    for place, why in (("nowhere", "is not a study's folder"), ("notes.txt", "not a packed study")):
        with pytest.raises(StudyError, match=why):
            fakes.go_on(tmp_path / "s", import_trials=[tmp_path / place])
    assert Store(tmp_path / "s").finished() == set()
