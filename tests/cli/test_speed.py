"""A speed-up as the target of `learn`. The prediction itself is tested with `bench`."""

from __future__ import annotations

import json

import pytest

from sparseattn.cli.speed import SpeedTarget
from sparseattn.counting import MeasuredSparsity
from sparseattn.degrees.learn import Learner
from sparseattn.errors import PlanError, StudyError
from sparseattn.plan import Plan
from tests.cli.test_degrees import invoke

LENGTH = 64


@pytest.fixture
def predicted(monkeypatch):
    """Instead of timings: the sparser a plan at the length, the faster."""
    plans = []

    def predict(self, plan):
        plans.append(plan)
        tokens = self._subject.tokens(self._subject.batch(1, self.length))
        return 1 + MeasuredSparsity.of(plan, [tokens], [12] * 6).sparsity

    monkeypatch.setattr(SpeedTarget, "predict", predict)
    return plans


def words(study, out, speedup, *more):
    typed = ("--speedup", speedup, "--length", LENGTH, "--out", out)
    return ("learn", "--task", study, *typed, "--set", "training.checkpoint_steps=1", *more)


@pytest.mark.parametrize("more", [(), ("--dense-layers", ":2")])
def test_the_plan_is_as_fast_as_asked_and_no_sparser_than_it_must_be(
    study,
    tmp_path,
    predicted,
    more,
):
    done = invoke(*words(study, tmp_path / "out", 1.6, *more))
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "speed.json").read_text(encoding="utf-8"))
    plan = Plan.load(tmp_path / "out" / "plan.json")
    assert predicted[-1] == plan
    assert found["predicted_speedup"] >= 1.6
    assert found["sparsity_at_length"] == pytest.approx(found["predicted_speedup"] - 1)
    assert found["predicted_speedup"] < 1.75
    assert "predicted speed-up at 64 tokens: 1.6" in done.output
    learned = json.loads((tmp_path / "out" / "learned.json").read_text(encoding="utf-8"))
    assert learned["target_sparsity"] == found["plan_sparsity"]
    if more:
        assert {entry.layers for entry in plan.entries} == {"2", "3", "4", "5"}


def test_a_job_that_was_stopped_goes_on_with_the_sparsity_it_had(
    study,
    tmp_path,
    predicted,
    monkeypatch,
):
    finetune = Learner.finetune

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Learner, "finetune", stop)
    assert invoke(*words(study, tmp_path / "out", 1.6)).exit_code != 0
    kept = json.loads((tmp_path / "out" / "work" / "speed.json").read_text(encoding="utf-8"))
    monkeypatch.setattr(Learner, "finetune", finetune)
    predicted.clear()
    done = invoke(*words(study, tmp_path / "out", 1.6))
    assert done.exit_code == 0, done.output
    assert len(predicted) == 1, "of the plan that was learned alone"
    found = json.loads((tmp_path / "out" / "speed.json").read_text(encoding="utf-8"))
    assert (found["search_sparsity"], found["plan_sparsity"]) == (kept["search"], kept["plan"])


@pytest.mark.usefixtures("predicted")
@pytest.mark.parametrize(
    ("typed", "error", "message"),
    [
        (("--speedup", 1.99, "--length", 64), PlanError, r"the highest speed-up is 1\.98"),
        (
            ("--speedup", 1.5, "--length", 64, "--dense-layers", ":5"),
            PlanError,
            r"1.5 times as fast at 64 tokens on this machine: the highest speed-up is 1\.16",
        ),
        (("--speedup", 1, "--length", 64), PlanError, "speed-up 1 must be above 1"),
        (("--speedup", 2, "--length", 0), PlanError, "length 0 must be a whole number"),
        (("--speedup", 2), StudyError, "--speedup and --length belong together"),
        ((), StudyError, "give a target: --sparsity, or --speedup and --length"),
        (("--sparsity", 0.5, "--speedup", 2, "--length", 9), StudyError, "are two targets"),
        (("--sparsity", ""), PlanError, "sparsity '' is not a number"),
        (
            ("--speedup", 1.2, "--length", 64, "--over", "neighbor,dependency"),
            PlanError,
            "over neighbor, dependency cannot be predicted without a parse",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_training(study, tmp_path, typed, error, message):
    done = invoke("learn", "--task", study, "--out", tmp_path / "out", *typed)
    assert isinstance(done.exception, error)
    with pytest.raises(error, match=message):
        raise done.exception
    assert not (tmp_path / "out").exists()
