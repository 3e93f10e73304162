"""Running, resuming, failing: in worker processes, with trials that take milliseconds."""

import io
import json
import signal
import subprocess
import sys
import time

import pytest
from pyarrow import csv, parquet
from rich.console import Console

from sparseattn.errors import StudyError
from sparseattn.study.display import Display
from sparseattn.study.executors import local
from sparseattn.study.locks import TrialLocks
from sparseattn.study.runner import Event, Runner
from sparseattn.study.session import resume
from sparseattn.study.store import Store
from sparseattn.study.trial import TrialSpec
from tests.study import fakes


def test_every_trial_runs_once_and_is_whole(tmp_path, log):
    trials = fakes.begin(tmp_path / "s", ["a", "b", "prints"], seeds=3)
    outcome = fakes.go_on(tmp_path / "s")
    assert (outcome.trials, outcome.run, outcome.failed) == (9, 9, {})
    assert sorted(fakes.noted(log, "end")) == sorted(trial.digest for trial in trials)
    folder = tmp_path / "s" / "trials" / trials[4].digest
    assert {path.name for path in folder.iterdir()} == {
        "environment.json",
        "log.jsonl",
        "predictions.parquet",
        "result.json",
        "spec.json",
    }
    read = Store(tmp_path / "s").read(trials[4].digest)
    assert read["status"] == "done"
    assert read["metrics"] == {"accuracy": pytest.approx(0.811), "f1": None}
    assert json.loads((folder / "spec.json").read_text())["seed"] == 1
    assert parquet.read_table(folder / "predictions.parquet").num_rows == 1000
    events = [json.loads(line)["event"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert events == ["start", "phase", "phase", "phase", "end"]
    assert not any((tmp_path / "s" / "work").iterdir())
    store = Store(tmp_path / "s")
    assert {path.name for path in store.trials.iterdir()} == store.finished(), "no drafts are left"
    before = (tmp_path / "s" / "results.csv").stat().st_mtime_ns
    assert fakes.go_on(tmp_path / "s").run == 0, "running again does nothing"
    assert len(fakes.noted(log, "begin")) == 9
    assert (tmp_path / "s" / "results.csv").stat().st_mtime_ns == before


def test_a_trial_that_fails_is_stored_with_its_reason_and_the_others_go_on(
    tmp_path, log, in_process
):
    (*_, bug, _) = fakes.begin(tmp_path / "s", ["nan", "memory", "bug", "fine"])
    outcome = fakes.go_on(tmp_path / "s")
    assert sorted(outcome.failed.values()) == [
        "KeyError: 'batch'",
        "out of memory: MemoryError",
        "the loss became nan by step 3",
    ]
    table = csv.read_csv(tmp_path / "s" / "results.csv").to_pylist()
    assert [row["status"] for row in table] == ["failed", "failed", "failed", "done"]
    assert table[0]["reason"] == "the loss became nan by step 3"
    assert fakes.go_on(tmp_path / "s").run == 0, "a failed trial is not run again unasked"
    again = fakes.go_on(tmp_path / "s", retry_failed=True)
    assert (again.run, len(again.failed)) == (3, 3)
    assert len(fakes.noted(log, "begin")) == 4 + 3
    text = (tmp_path / "s" / "trials" / bug.digest / "log.jsonl").read_text()
    assert "_misfortune" in json.loads(text.splitlines()[-1])["traceback"]


def test_a_killed_worker_is_replaced_and_its_trial_started_again(tmp_path, log):
    trials = fakes.begin(tmp_path / "s", ["killed once", "a", "b"], executor={"workers": 2})
    assert fakes.go_on(tmp_path / "s").failed == {}
    assert fakes.noted(log, "begin").count(trials[0].digest) == 2
    text = (tmp_path / "s" / "trials" / trials[0].digest / "log.jsonl").read_text()
    assert text.count('"event": "start"') == 2


@pytest.mark.parametrize(
    ("arm", "reason"),
    [
        ("killed", "its worker was killed by signal 9 (SIGKILL; out of memory?)"),
        ("exits", "its worker ended with status 7: Fatal Python error: pretend"),
    ],
)
def test_a_trial_that_kills_its_worker_twice_has_failed(tmp_path, log, arm, reason):
    trials = fakes.begin(tmp_path / "s", [arm, "a"])
    outcome = fakes.go_on(tmp_path / "s")
    assert outcome.failed == {trials[0].digest: reason}
    assert fakes.noted(log, "begin").count(trials[0].digest) == 2
    assert Store(tmp_path / "s").read(trials[1].digest)["status"] == "done"


def test_an_interrupted_run_stops_its_workers_and_goes_on(tmp_path, log, monkeypatch):
    monkeypatch.setenv(fakes.SECONDS, "0.4")
    trials = fakes.begin(tmp_path / "s", ["a"], seeds=6, executor={"workers": 2})
    runner = fakes.start(
        tmp_path / "s",
        stderr=subprocess.PIPE,
        # A shell lets what it runs in the background ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    fakes.wait_until(Store(tmp_path / "s").finished, "a trial is done")
    runner.send_signal(signal.SIGINT)
    told = runner.communicate(timeout=20)[1]
    assert b"KeyboardInterrupt" in told
    assert b"leaked" not in told
    began = len(fakes.noted(log, "begin"))
    assert 1 <= len(Store(tmp_path / "s").finished()) < 6
    time.sleep(0.6)
    assert len(fakes.noted(log, "begin")) == began, "its workers went on without it"
    assert (tmp_path / "s" / "results.csv").exists()
    monkeypatch.setenv(fakes.SECONDS, "0")
    fakes.go_on(tmp_path / "s")
    assert Store(tmp_path / "s").finished() == {trial.digest for trial in trials}


def test_a_script_need_not_be_guarded_against_its_workers(tmp_path, log):
    fakes.begin(tmp_path / "s", ["a"])
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path; from tests.study import fakes\n"
        f"assert fakes.go_on(Path({str(tmp_path / 's')!r})).run == 1\n"
    )
    subprocess.run([sys.executable, script], cwd=fakes.ROOT, check=True)
    assert len(fakes.noted(log, "begin")) == 1


def test_two_runners_share_the_work(tmp_path, log, monkeypatch):
    monkeypatch.setenv(fakes.SECONDS, "0.15")
    trials = fakes.begin(tmp_path / "s", ["a", "b"], seeds=10)
    runners = [fakes.start(tmp_path / "s", stderr=subprocess.PIPE) for _ in "ab"]
    told = [runner.communicate(timeout=60)[1].decode() for runner in runners]
    assert [runner.returncode for runner in runners] == [0, 0], told
    assert sorted(fakes.noted(log, "begin")) == sorted(trial.digest for trial in trials)
    assert all("accuracy" in text for text in told), "one of them did everything"


def test_workers_share_the_cores_and_the_gpus(tmp_path, log, monkeypatch):
    monkeypatch.setenv(fakes.SECONDS, "0.5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setattr(local, "cores", lambda: 6)
    trials = fakes.begin(tmp_path / "s", ["a"], 4, executor={"workers": 2})
    fakes.go_on(tmp_path / "s")
    told = [
        json.loads((tmp_path / "s" / "trials" / t.digest / "environment.json").read_text())
        for t in trials
    ]
    assert {environment["OMP_NUM_THREADS"] for environment in told} == {"3"}
    assert {environment["CUDA_VISIBLE_DEVICES"] for environment in told} == {"4", "6"}


def test_how_many_workers_there_are_unless_one_says(monkeypatch):
    monkeypatch.setattr(local, "cores", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert local.default_workers() == 3, "one for each GPU"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(local, "_MEMORY", 1)
    assert local.default_workers() == 2, "one for each core"
    monkeypatch.setattr(local, "_MEMORY", 1 << 60)
    assert local.default_workers() == 1, "at least one"


def test_a_trial_function_that_is_not_there(tmp_path, monkeypatch):
    fakes.begin(tmp_path / "s", ["a"])
    monkeypatch.setattr(fakes, "TRIAL", "tests.study.fakes:nothing")
    with pytest.raises(StudyError, match=r"unknown trial function 'tests\.study\.fakes:nothing'"):
        fakes.go_on(tmp_path / "s")


def test_a_folder_without_a_study(tmp_path):
    with pytest.raises(StudyError, match=r"is not a study's folder: it has no study\.json"):
        resume(tmp_path)
    with pytest.raises(StudyError, match=r"gone is not a study's folder: there is no such folder"):
        resume(tmp_path / "gone")
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match=r"file is not a study's folder: it is not a folder"):
        resume(tmp_path / "file")


def queued(seed: int, parses: bool = False) -> TrialSpec:
    return TrialSpec.model_validate(
        {
            "model": "m",
            "task": {"kind": "classification", "data": {"package": "p"}},
            "seed": seed,
            "versions": {"torch": "2", **({"spacy": "3"} if parses else {})},
        }
    )


PLAIN = [queued(seed) for seed in range(3)]
PARSED = [queued(seed, parses=True) for seed in range(3)]


class Scripted:
    """An executor of two workers, which takes trials until its script of events is over."""

    def __init__(self, *events: tuple[str, TrialSpec, str]) -> None:
        self.events, self.free, self.taken = list(events), 2, []

    def submit(self, trial: TrialSpec) -> None:
        self.free -= 1
        self.taken.append(trial)

    def poll(self, timeout: float) -> list[Event]:
        kind, trial, phase = self.events.pop(0)
        self.free += kind != "progress"
        return [Event(kind, trial.digest, phase)]


def order(tmp_path, trials, *events) -> list[TrialSpec]:
    """The trials in the order in which they are begun, until the events are over."""
    executor, display = Scripted(*events), Display(len(trials), Console(file=io.StringIO()))
    with TrialLocks(tmp_path) as locks, pytest.raises(IndexError):
        Runner(Store(tmp_path), executor, display, locks).run(trials)
    return executor.taken


def test_one_that_parses_goes_first_and_the_others_after_it_has(tmp_path):
    done = [("busy", trial, "") for trial in PLAIN]
    trials = [*PLAIN[:2], *PARSED, PLAIN[2]]
    begun = [PARSED[0], *PLAIN]
    assert order(tmp_path, trials, ("progress", PARSED[0], "prepare"), *done) == begun, "it waits"
    parsed = ("progress", PARSED[0], "train")
    assert order(tmp_path, trials, ("progress", PLAIN[0], "train"), *done) == begun
    assert order(tmp_path, trials, *done, parsed) == [*begun, PARSED[1]]


def test_the_next_one_parses_if_the_first_was_lost(tmp_path):
    lost = [("lost", PARSED[0], "")] * 2
    assert order(tmp_path, PARSED[:2], *lost[:1]) == [PARSED[0]] * 2
    assert order(tmp_path, PARSED[:2], *lost) == [PARSED[0], PARSED[0], PARSED[1]]


def test_without_a_parse_the_order_is_that_of_the_study(tmp_path):
    assert order(tmp_path, PLAIN, ("busy", PLAIN[0], "")) == PLAIN
