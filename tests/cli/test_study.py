"""`sparseattn study ...` from the outside."""

import pytest
from pyarrow import csv

from sparseattn.study import session
from tests.study import fakes

SMOKE = fakes.ROOT / "studies" / "smoke.yaml"


@pytest.fixture
def call(run, monkeypatch):
    """The status, output and errors of a command about studies."""
    monkeypatch.setenv("COLUMNS", "160")
    return lambda *arguments: run("study", *arguments)


@pytest.fixture
def faked(in_process, monkeypatch):
    """Lets `study resume` run fake trials."""

    def resume(folder, options):
        return fakes.go_on(folder, retry_failed=options.retry_failed, executor=options.executor)

    monkeypatch.setattr(session, "resume", resume)


def test_a_run_says_what_it_did_and_whether_trials_failed(faked, tmp_path, log, call):
    fakes.begin(tmp_path / "s", ["a", "nan"], 2)
    status, out, err = call("resume", tmp_path / "s", "--workers", "2")
    assert status == 1, "trials failed"
    assert out.splitlines() == [
        f"4 trials: ran 4; results in {tmp_path}/s/results.csv",
        f"`sparseattn study report {tmp_path}/s` writes the report",
    ]
    begins, first = err.splitlines()[:2]
    assert begins == f"running 4 trials of the study fake by 2 workers; results go to {tmp_path}/s"
    assert first.startswith("trial 1 of 4: ")
    assert "trial 4 of 4: " in err
    assert "2 trials failed: the loss became nan by step 3\n" in err
    assert "--retry-failed` runs them again" in err
    status, out, _ = call("resume", tmp_path / "s", "--retry-failed")
    assert (status, "ran 2" in out) == (1, True)
    status, out, _ = call("resume", tmp_path / "s")
    assert (status, "nothing to do" in out) == (1, True)


def test_results_compare_and_report(faked, tmp_path, log, call):
    fakes.begin(tmp_path / "s", ["a", "bb"], 2)
    assert call("resume", tmp_path / "s")[0] == 0
    (tmp_path / "s" / "results.csv").unlink()
    status, out, _ = call("results", tmp_path / "s")
    assert (status, out) == (0, f"wrote {tmp_path}/s/results.csv and .parquet: 4 trials\n")
    status, out, _ = call("compare", tmp_path / "s", "a", "bb")
    assert status == 0
    assert "accuracy" in out
    assert "No difference was found" in out
    status, _, err = call("compare", tmp_path / "s", "a", "c")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "unknown arm 'c'" in err
    status, out, _ = call("report", tmp_path / "s")
    assert status == 0
    assert (tmp_path / "s" / "report").is_dir()
    assert all((tmp_path / "s" / "report") in p.parents for p in (tmp_path / "s").rglob("*.html"))


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch, call):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "resume", interrupted)
    status, _, err = call("resume", tmp_path / "s")
    assert (status, err) == (130, "\nstopped; nothing was written\n")
    fakes.begin(tmp_path / "s", ["a"], 1)
    status, _, err = call("resume", tmp_path / "s")
    assert status == 130
    assert err == f"\nstopped; `sparseattn study resume {tmp_path}/s` goes on\n"


def test_what_is_asked_for_on_the_command_line_changes_the_executor(
    tmp_path, log, monkeypatch, call
):
    seen = []
    monkeypatch.setattr(
        session, "run", lambda *given: seen.append(given) or session.RunOutcome(tmp_path, 1, 0, {})
    )
    where = ("--workers", 3, "--executor", "ray", "--import", "runs/other")
    _, out, _ = call("run", SMOKE, "--out", tmp_path, *where)
    assert seen[0][2].executor == {"workers": 3, "kind": "ray"}
    assert [str(path) for path in seen[0][2].import_trials] == ["runs/other"]
    assert out.splitlines()[-1] == f"`sparseattn study report {tmp_path}` writes the report"
    fakes.begin(tmp_path / "s", ["a"])
    status, _, err = call("resume", tmp_path / "s", "--executor", "slurm")
    assert (status, err) == (2, "error: executor.kind: expected 'local' or 'ray', got 'slurm'\n")


@pytest.mark.parametrize("command", ["resume", "report", "results"])
def test_a_folder_without_a_study(command, tmp_path, call):
    status, _, err = call(command, tmp_path)
    assert status == 2
    assert err == f"error: {tmp_path} is not a study's folder: it has no study.json\n"
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_the_smoke_study_is_planned_run_and_reported(tmp_path, call):
    status, out, _ = call("plan", SMOKE)
    assert status == 0
    assert "4 trials: 4 arms, 1 seed\n" in out
    assert "neighbor(radius=3) | global(cls, sep)" in out
    assert "83.5%" in out
    status, _, _ = call("run", SMOKE, "--out", tmp_path / "s", "--yes")
    assert status == 0
    rows = csv.read_csv(tmp_path / "s" / "results.csv").to_pylist()
    assert [(row["arm"], row["status"]) for row in rows] == [
        ("dense", "done"),
        ("neighbor", "done"),
        ("neighbor", "done"),
        ("random", "done"),
    ]
    assert all(0.5 < row["accuracy"] <= 1 for row in rows)
    assert rows[2]["sparsity"] == pytest.approx(0.835, abs=0.01)
    status, out, _ = call("run", SMOKE, "--out", tmp_path / "s")
    assert (status, "nothing to do" in out) == (0, True)
    assert call("report", tmp_path / "s")[0] == 0
    where = (tmp_path / "s", "dense", "neighbor@:")
    assert call("compare", *where)[0] == 0
