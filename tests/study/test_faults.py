"""What may happen to a study, really done to one."""

import os
import random
import resource
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from pyarrow import csv

from sparseattn.errors import StudyError
from sparseattn.report.data import load_study
from sparseattn.study import record
from sparseattn.study.results import rebuild
from sparseattn.study.store import STUDY, Store
from tests.study import fakes


def workers_of(runner: subprocess.Popen) -> list[int]:
    """The processes that it started, but for the one that frees what multiprocessing shares."""
    text = Path(f"/proc/{runner.pid}/task/{runner.pid}/children").read_text()
    commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_text() for pid in text.split()}
    return [pid for pid, command in commands.items() if "spawn_main" in command]


def some_workers_of(runner: subprocess.Popen) -> list[int]:
    """Likewise; between one that was killed and the next there may be none for a moment."""
    fakes.wait_until(lambda: workers_of(runner) or runner.poll(), "a worker")
    return workers_of(runner)


def wait_for_a_beginning(log: Path, runner: subprocess.Popen) -> None:
    before = len(fakes.noted(log, "begin"))
    while len(fakes.noted(log, "begin")) == before and runner.poll() is None:
        time.sleep(0.01)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_at_random_moments_lose_nothing_and_repeat_nothing(tmp_path, log, monkeypatch, kills):
    monkeypatch.setenv(fakes.SECONDS, "0.1")
    folder, draw = tmp_path / "s", random.Random(kills)
    names = [f"arm {index}" for index in range(4 * kills)]
    trials = fakes.begin(folder, names, 3, executor={"workers": 2})
    store, seen = Store(folder), {}

    def look() -> None:
        for digest in store.finished():
            result = store.read(digest)  # whole, whenever one looks
            stamp = (store.trials / digest / "result.json").stat().st_mtime_ns
            if result["status"] == "done":
                assert seen.setdefault(digest, stamp) == stamp, f"{digest} was run again"

    runner = fakes.start(folder)
    for kill in range(kills):
        wait_for_a_beginning(log, runner)
        time.sleep(draw.uniform(0.0, 0.3))
        assert runner.poll() is None, "the study is too short for so many kills"
        if kill % 2:
            os.kill(draw.choice(some_workers_of(runner)), 9)
        else:
            runner.kill()
            runner.wait()
            runner = fakes.start(folder)
        look()
    runner.wait(timeout=200)
    # A trial whose worker was shot twice has failed, as it should.
    fakes.go_on(folder, retry_failed=True)
    look()
    assert store.finished() == set(seen) == {trial.digest for trial in trials}
    assert not any((folder / "work").iterdir())
    assert set(os.listdir(store.trials)) == store.finished(), "no drafts are left"
    assert csv.read_csv(folder / "results.csv")["status"].to_pylist() == ["done"] * len(trials)


def test_what_a_kill_just_after_storing_leaves_is_tidied_up(tmp_path, log, in_process):
    first, _ = fakes.begin(tmp_path / "s", ["a", "b"])
    fakes.go_on(tmp_path / "s")
    store = Store(tmp_path / "s")
    for digest in store.finished() - {first.digest}:
        shutil.rmtree(store.trials / digest)
    store.work(first.digest).mkdir()
    fakes.go_on(tmp_path / "s")
    assert not any((tmp_path / "s" / "work").iterdir())


def test_workers_end_with_their_runner(tmp_path, log, monkeypatch):
    monkeypatch.setenv(fakes.SECONDS, "30")
    fakes.begin(tmp_path / "s", ["a", "b"], executor={"workers": 2})
    runner = fakes.start(tmp_path / "s")
    fakes.wait_until(lambda: len(fakes.noted(log, "begin")) == 2, "both trials begin")
    workers = workers_of(runner)
    assert len(workers) == 2
    runner.kill()
    runner.wait()
    fakes.wait_until(lambda: not any(map(fakes.alive, workers)), "the workers end", 10)


def damage(folder: Path, name: str, how: str) -> None:
    path = folder / name
    data = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
        return
    if how == "flipped":
        digits = [place for place, byte in enumerate(data) if chr(byte) in "0123456789"]
        data[digits[-1]] ^= 1  # still a digit, so still JSON
    path.write_bytes(data[: len(data) // 2] if how == "short" else data)


@pytest.mark.parametrize(
    ("name", "how", "problem"),
    [
        ("result.json", "short", "cut short or not JSON"),
        ("result.json", "flipped", "its checksum does not match"),
        ("result.json", "missing", "No such file"),
        ("predictions.parquet", "short", r"\d+ bytes instead of \d+"),
        ("predictions.parquet", "flipped", "its checksum does not match"),
        ("log.jsonl", "missing", "No such file"),
    ],
)
def test_a_damaged_trial_is_named(tmp_path, name, how, problem):
    spec = fakes.make(["a"]).trials()[0][0]
    store = Store(tmp_path)
    store.prepare()
    values = spec.model_dump(mode="json")
    store.put(spec.digest, record.finished(values, spec.digest, fakes.result(0), b"{}\n"))
    assert store.read(spec.digest)["metrics"]["accuracy"] == 0.8
    damage(store.trials / spec.digest, name, how)
    with pytest.raises(StudyError, match=rf"{spec.digest}/{name} is damaged: .*{problem}") as found:
        store.read(spec.digest)
    assert "\n" not in str(found.value)


def test_damaged_trials_are_reported_and_replaced(tmp_path, log, capsys, in_process):
    trials = fakes.begin(tmp_path / "s", ["a", "b", "c"])
    fakes.go_on(tmp_path / "s")
    table = (tmp_path / "s" / "results.csv").read_text()
    folders = [tmp_path / "s" / "trials" / trial.digest for trial in trials]
    damage(folders[0], "result.json", "short")
    damage(folders[2], "predictions.parquet", "flipped")
    assert set(rebuild(tmp_path / "s").damaged) == {trials[0].digest, trials[2].digest}
    assert load_study(tmp_path / "s").rows["digest"].tolist() == [trials[1].digest]
    outcome = fakes.go_on(tmp_path / "s")
    told = capsys.readouterr().err
    assert f"{folders[0]}/result.json is damaged: cut short or not JSON; it is run again" in told
    assert f"{folders[2]}/predictions.parquet is damaged" in told
    assert (outcome.run, outcome.failed) == (2, {})
    assert fakes.noted(log, "begin").count(trials[1].digest) == 1
    assert (tmp_path / "s" / "results.csv").read_text() == table


def test_a_full_disk_is_one_error_and_the_study_goes_on_after_it(disk_of, log):
    small_disk = disk_of("1m")
    trials = fakes.begin(small_disk / "s", ["a", "b", "c"])
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    then = "free some space, and the same command goes on"
    told = rf"^cannot write to .*/s: No space left on device; {then}$"
    with pytest.raises(StudyError, match=told):
        fakes.go_on(small_disk / "s")
    assert Store(small_disk / "s").finished() == set()
    ballast.unlink()
    assert fakes.go_on(small_disk / "s").run == 3
    assert Store(small_disk / "s").finished() == {trial.digest for trial in trials}


def test_a_checkpoint_that_fills_the_disk_does_not_fail_the_trial(disk_of, log):
    small_disk = disk_of("1m")
    fakes.begin(small_disk / "s", ["fills"])
    with pytest.raises(StudyError, match="No space left on device"):
        fakes.go_on(small_disk / "s")
    assert Store(small_disk / "s").finished() == set()


def test_a_file_size_limit_is_like_a_full_disk(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StudyError, match="File too large; free some space"):
            store.put("0" * 16, {"small": b"1", "large": bytes(2000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert store.finished() == set()
    assert os.listdir(store.trials) == []


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "trials").write_text("in the way")
    with pytest.raises(StudyError, match=r"cannot write to .*; choose a folder that can be"):
        Store(tmp_path / "s").prepare()


def test_a_study_file_that_is_damaged(tmp_path):
    fakes.begin(tmp_path / "s", ["a"])
    for text, problem in (
        ("{", r"study\.json is damaged: it is not JSON"),
        ('{"format": "sparseattn-study-1"}', r"study\.json is damaged: the key 'spec' is missing"),
        ('{"format": "sparseattn-study-0"}', "is not the 'sparseattn-study-1' of this version"),
    ):
        (tmp_path / "s" / STUDY).write_text(text)
        with pytest.raises(StudyError, match=problem):
            load_study(tmp_path / "s")
