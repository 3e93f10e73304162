"""Learning degrees from end to end on a tiny model."""

from __future__ import annotations

import json
import math

import pytest
import torch
from transformers import Trainer, TrainerCallback

import sparseattn as sa
from sparseattn.counting import MeasuredSparsity, count_plan
from sparseattn.degrees.learn import Learner, learn_degrees, steps_of
from sparseattn.degrees.picture import radii_of
from sparseattn.degrees.search import DualAscent, Schedule
from sparseattn.degrees.settings import Settings
from sparseattn.degrees.texts import Texts
from sparseattn.errors import DataError, PlanError, UnsupportedModelError
from tests.degrees.small import arguments, classifier, collate, rows
from tests.models.families import batch, build

HELD_OUT = rows(64, seed=9)
TRAINER = {"data_collator": collate, "eval_dataset": HELD_OUT}


def learn(folder, sparsity=0.7, steps=24, data=None, **options):
    return learn_degrees(
        classifier(),
        data or rows(),
        sparsity,
        arguments=arguments(folder, steps),
        trainer=TRAINER,
        **options,
    )


def sparsity_of(plan, data=None):
    tokens = Texts(classifier(), data or HELD_OUT, collate, 1000).tokens(plan)
    return MeasuredSparsity.of(plan, tokens, [4] * 3).sparsity


@pytest.mark.parametrize(
    ("sparsity", "options"),
    [
        (0.6, {}),
        (0.8, {"granularity": "layer", "candidates": (0, 1, 2, 3, 4, 6, 8, 12, 16, 24)}),
        (0.5, {"dense_layers": "0", "start": "calibrated"}),
        (0.7, {"form": "irregular"}),
        (0.7, {"elastic": True}),
        (0.85, {"globals": ()}),
    ],
)
def test_the_target_sparsity_is_met_on_held_out_texts(tmp_path, sparsity, options):
    learned = learn(tmp_path, sparsity, steps=6, **options)
    # A tiny model has 12 heads: one change of radius is up to 1 point.
    found = learned.measured_sparsity
    assert abs(found - sparsity) < 0.025
    assert found == pytest.approx(sparsity_of(learned.plan))
    assert learned.windows.sparsity >= found
    report = sa.describe(learned.model, collate(HELD_OUT))
    assert report.sparsity == pytest.approx(found)
    if "dense_layers" in options:
        assert report.layers[0].sparsity == 0


def test_the_search_reaches_its_budget_and_writes_it_down(tmp_path):
    learned = learn(tmp_path, 0.7, steps=100, search_steps=0.8)
    steps = [entry["step"] for entry in learned.history]
    assert steps == list(range(1, 81))
    assert learned.history[0]["density"] > 0.9
    assert learned.history[-1]["target"] == pytest.approx(0.3)
    assert abs(learned.history[-1]["density"] - 0.3) < 0.03
    assert learned.history[-1]["temperature"] == pytest.approx(0.2)
    assert set(learned.metrics) == {"search", "discretized", "final"}
    assert all("eval_loss" in found for found in learned.metrics.values())
    assert learned.warnings == []
    assert "warning" not in str(learned)


def test_a_search_that_missed_its_budget_is_told(tmp_path):
    learned = learn(tmp_path, 0.7, steps=4)
    assert learned.expected_sparsity < 0.6
    (message,) = learned.warnings
    assert f"expect a sparsity of {learned.expected_sparsity:.3f}, not 0.700" in message
    assert f"warning: {message}" in str(learned)
    assert learned.to_json()["warnings"] == [message]


def test_a_plan_that_misses_its_target_names_the_way_out(tmp_path):
    trainer = {**TRAINER, "eval_dataset": rows(64, seed=9, longest=12)}
    options = {"arguments": arguments(tmp_path, 100), "trainer": trainer, "search_steps": 0.8}
    learned = learn_degrees(classifier(), rows(), 0.7, **options)
    (message,) = learned.warnings
    assert f"measured sparsity {learned.measured_sparsity:.3f} is not the target 0.700" in message
    assert "the target was met on the training texts, of 17." in message
    assert "and the evaluation texts have 11." in message
    assert "--budget-split evaluation" in message
    options |= {"arguments": arguments(tmp_path, 4), "budget_split": "evaluation"}
    mended = learn_degrees(classifier(), rows(), 0.6, **options)
    assert not any("is not the target" in message for message in mended.warnings)
    coarse = learn_degrees(classifier(), rows(), 0.6, **options, candidates=(0, 20))
    assert abs(coarse.measured_sparsity - 0.6) < 0.03


def test_a_dense_baseline_is_trained_with_as_many_steps(tmp_path):
    made = arguments(tmp_path, 8)
    settings = Settings()
    plain = Learner(classifier(), rows(), made, dict(TRAINER), settings).learn([0.6])[0]
    learner = Learner(classifier(), rows(), made, dict(TRAINER), settings)
    learned = learner.learn([0.6], dense_baseline=True)[0]
    assert learned.plan == plain.plan
    assert learned.history == plain.history
    stock = Trainer(classifier(), made, train_dataset=rows(), **TRAINER)
    stock.train()
    assert learned.scores("dense")["loss"] == pytest.approx(stock.evaluate()["eval_loss"])
    assert "dense baseline: loss" in str(learned)
    assert "dense baseline" not in str(plain)


def test_the_picture_shows_the_radii_of_the_plan(tmp_path):
    regular = learn(tmp_path / "a", 0.5, steps=4, dense_layers="0")
    found = radii_of(regular.plan, regular.costs)
    assert found.shape == (2, 4)
    assert set(found.flatten()) <= {float(entry) for entry in regular.candidates.entries}
    patterns = [str(p) for groups in regular.plan.resolve([4] * 3)[1:] for _, p in groups]
    assert {f"neighbor(radius={r:.0f}) | global(cls)" for r in set(found.flatten())} == set(
        patterns
    )
    irregular = learn(tmp_path / "b", steps=4, form="irregular")
    means = radii_of(irregular.plan, irregular.costs)
    assert means.shape == (3, 4)
    assert 0 < means.mean() < 24


def test_a_learned_plan_reloads_and_gives_the_same_logits(tmp_path):
    learned = learn(tmp_path / "run", steps=6)
    written = learned.save(tmp_path / "out")
    assert [path.name for path in written] == ["plan.json", "model", "learned.json", "degrees.png"]
    inputs = batch((23, 7))
    with torch.no_grad():
        expected = learned.model.eval()(**inputs).logits
        loaded = sa.load(tmp_path / "out" / "model")(**inputs).logits
        plain = sa.sparsify(classifier(), sa.Plan.load(tmp_path / "out" / "plan.json"))
        plain.load_state_dict(learned.model.state_dict())
        assert torch.equal(plain.eval()(**inputs).logits, expected)
    assert torch.equal(loaded, expected)
    values = json.loads((tmp_path / "out" / "learned.json").read_text())
    assert values["target_sparsity"] == 0.7
    assert values["measured_on"] == "64 evaluation texts"
    assert len(values["history"]) == 3
    assert written[3].read_bytes().startswith(b"\x89PNG")
    assert "target sparsity 0.700, measured sparsity 0." in str(learned)


def test_degrees_have_their_own_rate_and_no_decay(tmp_path):
    seen = {}

    class Look(TrainerCallback):
        def on_step_begin(self, args, state, control, optimizer=None, model=None, **kwargs):
            names = {id(p): n for n, p in model.named_parameters()}
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    seen.setdefault(names[id(parameter)], []).append(group)

    made = arguments(tmp_path, 4, weight_decay=0.3)
    trainer = {"data_collator": collate, "callbacks": [Look()]}
    learner = Learner(classifier(), rows(), made, trainer, Settings(learning_rate=0.07))
    learner.search(0.6, 2)
    groups = seen["sparseattn_degrees.theta"]
    assert len(groups) == 2
    assert groups[-1]["initial_lr"] == 0.07
    assert groups[-1]["weight_decay"] == 0.0
    assert groups[-1]["betas"] == (0.5, 0.95)
    weight = seen["bert.encoder.layer.0.attention.self.query.weight"]
    assert weight[-1]["weight_decay"] == 0.3
    assert weight[-1]["initial_lr"] == 1e-3


def test_several_sparsities_share_the_search(tmp_path):
    results = learn(tmp_path, [0.8, 0.6], steps=16)
    assert [result.target_sparsity for result in results] == [0.6, 0.8]
    # 8 search steps for the first, 4 more for the second.
    assert [len(result.history) for result in results] == [8, 12]
    assert results[0].history == results[1].history[:8]
    assert results[0].measured_sparsity < results[1].measured_sparsity
    inputs = batch((23, 7))
    for result in results:
        report = sa.describe(result.model, inputs)
        assert report.sparsity == pytest.approx(
            count_plan(result.plan, sa.TokenBatch.of_columns(inputs), [4] * 3).sparsity
        )
    first, last = (dict(result.model.named_parameters()) for result in results)
    assert not torch.equal(first["classifier.weight"], last["classifier.weight"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"granularity": "heads"}, "unknown granularity 'heads' .did you mean 'head'.*head, layer"),
        ({"form": "random"}, "unknown form 'random'; choose from: regular, irregular"),
        ({"start": "warm"}, "unknown start 'warm'; choose from: dense, calibrated"),
        ({"radii": (0, 1)}, "unknown option 'radii'"),
        ({"search_steps": 1.0}, "search_steps 1.0 must be between 0 and 1"),
        ({"warmup": 1.5}, "warmup 1.5 must be from 0 to 1"),
        ({"temperature_end": 0.0}, "temperature_end 0.0 must be above 0"),
        ({"elastic": True, "form": "irregular"}, "write form='regular'"),
        ({"dense_layers": "7"}, "layer 7 does not exist"),
        ({"search_steps": 0.01}, "6 training steps cannot be shared out"),
    ],
)
def test_wrong_options(tmp_path, options, message):
    with pytest.raises(PlanError, match=message):
        learn(tmp_path, steps=6, **options)


def deberta():
    return build("deberta", "ForSequenceClassification")


UNLABELLED = [{k: v for k, v in row.items() if k != "labels"} for row in rows(24)]


@pytest.mark.parametrize(
    ("sparsity", "changes", "error", "message"),
    [
        (0.99, {}, PlanError, r"sparsity 0.99 cannot be reached.*the highest is 0\.\d+"),
        ([], {}, PlanError, "got none"),
        (0.5, {"data": []}, DataError, "there is none"),
        (0.5, {"data": [{"text": "a"}]}, DataError, "need the column input_ids; they have"),
        (0.5, {"data": UNLABELLED}, PlanError, "returned no loss; the data need labels"),
        (0.5, {"model": deberta}, UnsupportedModelError, "takes only a boolean mask"),
        (0.5, {"label_smoothing_factor": 0.1}, PlanError, "label smoothing"),
    ],
)
def test_what_cannot_be_learned(tmp_path, sparsity, changes, error, message):
    changes = {"model": classifier, "data": rows(24), **changes}
    model, data = changes.pop("model")(), changes.pop("data")
    how = arguments(tmp_path, **changes)
    with pytest.raises(error, match=message):
        learn_degrees(model, data, sparsity, arguments=how, trainer=TRAINER)


@pytest.mark.parametrize("epochs", [1, 1.5])
def test_steps_are_counted_as_the_trainer_counts_them(tmp_path, epochs):
    assert steps_of(arguments(tmp_path, 7), 96) == 7
    made = arguments(tmp_path, -1, num_train_epochs=epochs, gradient_accumulation_steps=5)
    data = rows(96)  # 12 batches: 5, 5 and 2
    trainer = Trainer(classifier(), made, train_dataset=data, data_collator=collate)
    trainer.train()
    assert steps_of(made, len(data)) == trainer.state.global_step == round(3 * epochs + 0.1)


def test_dual_ascent_pulls_from_both_sides():
    ascent = DualAscent(rate=0.5, lambda2=0.0)
    ascent.ascend(0.6, 0.2)
    gap = math.log(3)
    assert (ascent.lambda1, ascent.lambda2) == pytest.approx((0.5 * gap, 0.5 * gap**2))
    density = torch.tensor(0.4, requires_grad=True)
    ascent.penalty(density, 0.2).backward()
    slope = ascent.lambda1 + 2 * ascent.lambda2 * math.log(2)
    assert float(density.grad) == pytest.approx(slope / 0.4)
    for _ in range(3):
        ascent.ascend(0.1, 0.2)
    assert ascent.lambda1 == pytest.approx(0.5 * gap - 1.5 * math.log(2))


@pytest.mark.parametrize("sparsity", [0.6, 0.9])
def test_few_steps_reach_a_budget_however_small(tmp_path, sparsity):
    data = rows(48, longest=64)
    options = {"arguments": arguments(tmp_path, 100), "trainer": {"data_collator": collate}}
    learned = learn_degrees(classifier(), data, sparsity, **options)
    assert learned.history[-1]["density"] == pytest.approx(1 - sparsity, rel=0.1)


def test_the_schedule_ramps_then_cools():
    schedule = Schedule(101, 0.5, start=0.9, goal=0.2, temperature_start=1.0, temperature_end=0.1)
    targets = [schedule.target(step) for step in range(101)]
    heats = [schedule.temperature(step) for step in range(101)]
    assert targets[0] > 0.88
    assert targets[60:] == pytest.approx([0.2] * 41)
    assert sorted(targets, reverse=True) == pytest.approx(targets)
    assert heats[:50] == [1.0] * 50
    assert heats[-1] == pytest.approx(0.1)
    assert sorted(heats, reverse=True) == heats
