"""A real training whose processes are killed in its middle, and the study that goes on after it."""

import json

import pytest
from pyarrow import csv

from sparseattn.report.data import load_study
from sparseattn.study import Options, resume
from sparseattn.study.resolve import resolve
from sparseattn.study.run_trial import TrialCache, run_trial
from sparseattn.study.spec import spec_of
from sparseattn.study.store import Store
from sparseattn.study.study import create
from tests.study import fakes, observed
from tests.tasks.material import study_values, task_of, tiny_model

ROWS = [{"text": "word " * (1 + n * 5 % 13), "label": n % 2} for n in range(24)]


def test_a_killed_training_goes_on_inside_itself_and_ends_as_if_nothing_had_been(
    tmp_path, log, monkeypatch, in_process
):
    """Begun by a worker, whose runner is killed and takes it along; ended by this process."""
    monkeypatch.setenv("SPARSEATTN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(observed.HOLDS, str(tmp_path))
    given = study_values(
        tiny_model(tmp_path / "model"),
        task_of(tmp_path / "data", ROWS),
        training={
            "steps": observed.STEPS,
            "batch_size": 4,
            "learning_rate": 1e-3,
            "checkpoint_steps": 5,
        },
        arms=[{"name": "near", "pattern": "neighbor(radius=1) | global(cls)"}],
    )
    cache, folder = TrialCache(), tmp_path / "s"
    study, *_ = resolve(spec_of(given), 10, cache)
    create(study, Store(folder))
    (trial,) = study.trials()[0]
    observed.hold(tmp_path, trial.digest, 13)
    runner = fakes.start(folder, "observed")
    try:
        fakes.wait_until(lambda: fakes.told(log, "held") or runner.poll(), "a step is reached")
    finally:
        runner.kill()
        runner.wait()
    assert Store(folder).finished() == set()
    assert resume(folder, Options(trial=observed.TRIAL)).run == 1

    taken = [int(step) for _, step in fakes.told(log, "step")]
    again = [*range(1, 14), *range(11, observed.STEPS + 1)]
    assert taken == again, "it started again from its checkpoint, and ran to its end once"
    lines = (folder / "trials" / trial.digest / "log.jsonl").read_text().splitlines()
    starts = [line for line in map(json.loads, lines) if line["event"] == "start"]
    assert [line.get("checkpoint") for line in starts] == [None, "checkpoint-10"]
    check_same(folder, trial, run_trial(trial, cache=cache))
    assert csv.read_csv(folder / "results.csv")["status"].to_pylist() == ["done"]
    assert not any((folder / "work").iterdir())
    assert resume(folder).run == 0


def check_same(folder, trial, undisturbed):
    """Threads and processes may differ in the last digits."""
    found = load_study(folder)
    row = found.rows.set_index("digest").loc[trial.digest]
    assert row["accuracy"] == undisturbed.metrics["accuracy"]
    result = Store(folder).read(trial.digest)
    losses = [entry["loss"] for entry in undisturbed.history]
    assert [entry["loss"] for entry in result["history"]] == pytest.approx(losses, rel=1e-4)
    scores = undisturbed.predictions["score"].to_pylist()
    read = found.predictions(trial.digest)["score"].tolist()
    assert read == pytest.approx(scores, abs=1e-4)
