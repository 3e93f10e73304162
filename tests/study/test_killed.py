"""Real trainings that are killed in their middle, and the study that goes on after it."""

import json
import os

import pytest
from pyarrow import csv

from sparseattn.report.data import load_study
from sparseattn.study import resume
from sparseattn.study.resolve import resolve
from sparseattn.study.run_trial import TrialCache, run_trial
from sparseattn.study.spec import spec_of
from sparseattn.study.store import Store
from sparseattn.study.study import create
from tests.study import fakes, observed
from tests.tasks.material import study_values, task_of, tiny_model

ROWS = [{"text": "word " * (1 + n * 5 % 13), "label": n % 2} for n in range(24)]


@pytest.fixture
def begun(tmp_path, monkeypatch, log):
    """A study of two trials on a tiny model, begun; its folder, its trials, and a shared cache."""
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
        arms=["dense", {"name": "near", "pattern": "neighbor(radius=1) | global(cls)"}],
    )
    cache = TrialCache()
    study, *_ = resolve(spec_of(given), 10, cache)
    create(study, Store(tmp_path / "s"))
    return tmp_path / "s", study.trials()[0], cache


def test_killed_trainings_go_on_inside_themselves_and_end_as_if_nothing_had_been(
    begun, tmp_path, log
):
    folder, (first, second), cache = begun
    observed.hold(tmp_path, first.digest, 7)
    observed.hold(tmp_path, second.digest, 13)
    runner = fakes.start(folder, "observed")
    try:
        fakes.wait_until(lambda: fakes.told(log, "held") or runner.poll(), "a step is reached")
        ((digest, worker),) = fakes.told(log, "held")
        assert digest == first.digest
        os.kill(int(worker), 9)  # the runner starts another one
        fakes.wait_until(lambda: len(fakes.told(log, "held")) > 1 or runner.poll(), "another one")
        assert fakes.told(log, "held")[1][0] == second.digest
    finally:
        runner.kill()
        runner.wait()
    assert Store(folder).finished() == {first.digest}
    assert fakes.start(folder, "observed").wait(timeout=300) == 0

    last = observed.STEPS
    for trial, steps, checkpoint in (
        (first, [*range(1, 8), *range(6, last + 1)], "checkpoint-5"),
        (second, [*range(1, 14), *range(11, last + 1)], "checkpoint-10"),
    ):
        taken = [int(step) for digest, step in fakes.told(log, "step") if digest == trial.digest]
        assert taken == steps, "it started again from its checkpoint, and ran to its end once"
        lines = (folder / "trials" / trial.digest / "log.jsonl").read_text().splitlines()
        starts = [line for line in map(json.loads, lines) if line["event"] == "start"]
        assert [line.get("checkpoint") for line in starts] == [None, checkpoint]
        check_same(folder, trial, run_trial(trial, cache=cache))

    assert csv.read_csv(folder / "results.csv")["status"].to_pylist() == ["done", "done"]
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
