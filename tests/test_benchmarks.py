"""The record that the benchmarks keep, and the attention whose gradients cost nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sparseattn.backends.base import backend, backends
from sparseattn.cli import app
from sparseattn.degrees.files import jobs
from tests.backends.test_conformance import case, gradients

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def found(monkeypatch):
    """The benchmarks, found as when one of them runs as a script."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def record_of(folder, how="on the clock", **more):
    from record import Record

    return Record("speed", ["what", "time", "ratio"], how, folder, **more)


def fails():
    raise ValueError("no such machine\nand more")


@pytest.mark.usefixtures("found")
def test_a_part_that_fails_does_not_lose_the_others(tmp_path):
    record = record_of(tmp_path)
    record.part("first", lambda: {"rows": [["first", "1 ms", "2x"]], "times": [1, 2]})
    record.part("gone", fails)
    record.part("wrong", lambda: sys.exit("differs from reference by 1"))
    record.part("last", lambda: {"rows": [["last", "3 ms", "4x"]]})
    with pytest.raises(SystemExit, match="2 part"):
        record.done()
    stored = json.loads((tmp_path / "speed.json").read_text())["on the clock"]
    assert stored["first"]["times"] == [1, 2]
    table = (tmp_path / "speed.md").read_text()
    for line in (
        "| what | time | ratio |",
        "| first | 1 ms | 2x |",
        "| gone | failed: no such machine |  |",
        "| wrong | failed: differs from reference by 1 |  |",
        "| last | 3 ms | 4x |",
    ):
        assert line in table


@pytest.mark.usefixtures("found")
def test_what_is_there_is_not_run_again_and_what_failed_is(tmp_path):
    record_of(tmp_path).part("one", lambda: {"rows": [["one", "1", "1"]]})
    record_of(tmp_path).part("two", fails)
    again = record_of(tmp_path)
    again.part("one", fails)
    again.part("two", lambda: {"rows": [["two", "2", "2"]]})
    again.done()
    assert "failed" not in (tmp_path / "speed.md").read_text()
    record_of(tmp_path, again=True).part("one", fails)
    assert "| one | failed: no such machine |" in (tmp_path / "speed.md").read_text()


@pytest.mark.usefixtures("found")
def test_times_taken_another_way_stand_apart(tmp_path):
    for how in ("on the clock", "busy"):
        record_of(tmp_path, how).part("one", lambda how=how: {"rows": [["one", how, "1"]]})
    table = (tmp_path / "speed.md").read_text()
    assert "| one | on the clock | 1 |" in table
    assert "| one | busy | 1 |" in table
    assert table.count("| what | time | ratio |") == 2


@pytest.mark.usefixtures("found")
def test_the_bound_trains_queries_and_keys_for_nothing():
    from rivals import bound

    with bound() as name:
        call = case("full()", 7)
        out, grads = gradients(backend(name), call)
    assert torch.equal(out, call.value)
    assert all(torch.equal(grad, grads[0]) and grad.any() for grad in grads)
    assert name not in backends()


@pytest.mark.usefixtures("found")
def test_the_frontier_asks_for_what_learn_can_read(tmp_path, monkeypatch):
    from frontier import SPARSITIES, arguments

    seen = []

    def read(task, sparsity, out, model, seed, options, changes):
        seen.append((jobs._study(task, model, changes).training, sparsity, seed))
        return ()

    monkeypatch.setenv("SPARSEATTN_DATA", str(tmp_path))
    monkeypatch.setattr(jobs, "learn_task", read)
    done = CliRunner().invoke(app, arguments(SPARSITIES, 1, tmp_path / "out"))
    assert done.exit_code == 0, done.exception
    ((training, sparsities, seed),) = seen
    assert (training.learning_rate, sparsities, seed) == (1e-4, list(SPARSITIES), 1)


def test_a_script_writes_its_table(tmp_path):
    """The shortest real part: compared with the definition, timed, written."""
    command = [sys.executable, str(BENCHMARKS / "attention.py"), "--quick", "--busy"]
    command += ["--only", "inference-512", "--out", str(tmp_path)]
    subprocess.run(command, check=True, timeout=300)
    (parts,) = json.loads((tmp_path / "attention.json").read_text()).values()
    assert parts["inference-512"]["times"].keys() == {"dense", "tiled"}
    assert "| inference, radius 32, 512 tokens | dense " in (tmp_path / "attention.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("found")
def test_ten_thousand_finished_trials_are_seen_to_be_finished(tmp_path):
    """The goal is 5 s of a quiet machine; work is counted here, and twice as much allowed."""
    from study_large import MEMORY, fill, timed

    spec, out = tmp_path / "large.yaml", tmp_path / "large"
    assert fill(spec, out, 10_000, examples=20) > 9_900
    for _ in ("from every trial", "from the table"):
        _, work, peak = timed(["run", str(spec), "--out", str(out)])
        assert work < 10
        assert peak < MEMORY
    assert (out / "results.csv").is_file()


@pytest.mark.slow
def test_a_command_beyond_its_goal_fails_the_benchmark_and_is_recorded(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "study_large.py"), "--trials", "6"]
    command += ["--examples", "20", "--out", str(tmp_path)]
    assert subprocess.run([*command, "--slack", "100"], timeout=300).returncode == 0
    table = (tmp_path / "study_large.md").read_text()
    assert "6 finished trials of 20 examples" in table
    assert table.count("| run, ") == 2
    assert subprocess.run([*command, "--slack", "0"], timeout=300).returncode
    assert "failed: " in (tmp_path / "study_large.md").read_text()
