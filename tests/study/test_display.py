"""What a user sees while trials run."""

import io

import pytest
from rich.console import Console

from sparseattn.study.display import Display, label
from sparseattn.study.trial import TrialSpec
from sparseattn.words import duration


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""

    class Clock:
        now = 100.0

    monkeypatch.setattr("rich.console.monotonic", lambda: Clock.now)
    return Clock


def trial(seed: int, pattern: str = "neighbor(radius=1)") -> TrialSpec:
    task = {"kind": "classification", "data": {"package": "p"}}
    values = {"arm": "near", "pattern": pattern, "layers": "-3:", "seed": seed}
    return TrialSpec.model_validate({"model": "m", "task": task, **values})


def test_lines_count_trials_and_say_how_long_it_takes(clock):
    file = io.StringIO()
    with Display(3, Console(file=file, width=20)) as shown:
        shown.start(trial(0))
        clock.now += 30
        shown.advance(trial(0), "train", 0.5)
        clock.now += 30
        shown.end(trial(0), "accuracy 0.9000, which does not fit in twenty columns")
        shown.end(trial(1), None)
        shown.end(trial(2, "dense"), "failed: no")
    assert file.getvalue().splitlines() == [
        "trial 1 of 3: near, layers last 3, seed 0: accuracy 0.9000, which does not fit in twenty "
        "columns; 1 min 0 s elapsed, about 2 min 0 s left",
        "trial 2 of 3: near, seed 2: failed: no; 1 min 0 s elapsed, about 20 s left",
    ]


def test_bars_show_the_study_and_each_trial_that_runs(clock):
    file = io.StringIO()
    with Display(2, Console(file=file, force_terminal=True, width=120)) as shown:
        shown.start(trial(0))
        shown.start(trial(1))
        clock.now += 60
        shown.advance(trial(0), "train", 0.5)
        shown.end(trial(0), "accuracy [bold]0.9")
        shown.advance(trial(1), "evaluate", 0.0)
        shown.end(trial(1), None)
    text = file.getvalue()
    assert "near, layers last 3, seed 0: accuracy [bold]0.9" in text, "names are not markup"
    assert "trial 2 of 2" in text
    assert "0:01:00" in text


def test_a_trial_s_share_grows_over_its_phases_and_a_lost_trial_starts_again():
    shown, shares = Display(1, Console(file=io.StringIO())), []
    phases = [("prepare", 0), ("train", 0), ("train", 1), ("evaluate", 0.5), ("evaluate", 2)]
    shown.start(trial(0))
    for at in phases:
        shown.advance(trial(0), *at)
        shares.append(shown._bars.tasks[1].completed)
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    shown.end(trial(0), None)
    shown.start(trial(0))
    shown.advance(trial(0), "train", 0.0)
    assert shown.done == 0


def test_times_and_names_are_short():
    assert [duration(seconds) for seconds in (0, 59.6, 3600)] == ["0.0 s", "1 min 0 s", "1 h 0 min"]
    assert label(trial(3)) == "near, layers last 3, seed 3"
    assert label(trial(3, "dense")) == "near, seed 3"
