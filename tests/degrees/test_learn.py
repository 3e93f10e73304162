"""Learning degrees from end to end on a tiny model."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch
from transformers import Trainer, TrainerCallback

import sparseattn as sa
from sparseattn.counting import MeasuredSparsity
from sparseattn.degrees.learn import Learner, learn_degrees, steps_of
from sparseattn.degrees.result import kind_lines
from sparseattn.degrees.search import DualAscent, Schedule
from sparseattn.degrees.settings import Settings
from sparseattn.degrees.texts import Texts
from sparseattn.errors import AnnotationError, DataError, PlanError, UnsupportedModelError
from tests.degrees.small import arguments, classifier, collate, rows
from tests.models.families import build

HELD_OUT = rows(64, seed=9)
SIMILARITY = "similarity(degrees=[0, 1, 2, 4, 8])"
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


def sparsity_of(learned):
    """Counted with the embeddings that similar keys are found by, which were trained."""
    tokens = Texts(learned.model, HELD_OUT, collate, 1000).tokens(learned.plan)
    return MeasuredSparsity.of(learned.plan, tokens, [4] * 3).sparsity


@pytest.mark.parametrize(
    ("sparsity", "options"),
    [
        (0.8, {"granularity": "layer"}),
        (0.5, {"dense_layers": "0", "over": "neighbor"}),
        (0.7, {"over": "elastic", "off": False}),
        (0.7, {"over": "random, similarity(degrees=[0, 1, 2, 3, 5, 8, 12])"}),
        (0.9, {"globals": ()}),
    ],
)
def test_the_target_sparsity_is_met_on_held_out_texts(tmp_path, sparsity, options):
    learned = learn(tmp_path, sparsity, steps=6, **options)
    # A tiny model has 12 heads: one change of degree is up to 1 point.
    found = learned.measured_sparsity
    assert abs(found - sparsity) < 0.025
    assert found == pytest.approx(sparsity_of(learned))
    report = sa.describe(learned.model, collate(HELD_OUT))
    assert report.sparsity == pytest.approx(found)
    if "dense_layers" in options:
        assert report.layers[0].sparsity == 0


def test_the_search_reaches_its_budget_writes_it_down_and_says_if_the_task_was_learned(tmp_path):
    learned = learn(tmp_path, 0.7, steps=100, search_steps=0.8)
    steps = [entry["step"] for entry in learned.history]
    assert steps == list(range(1, 81))
    assert learned.history[0]["density"] > 0.9
    # A little below the budget of 0.3, some of which go to each token's own place.
    least = 1 - learned.costs.highest
    assert learned.history[-1]["target"] == pytest.approx(least + 0.97 * (0.3 - least))
    assert abs(learned.history[-1]["density"] - 0.3) < 0.03
    assert learned.history[-1]["temperature"] == pytest.approx(0.05)
    assert set(learned.metrics) == {"search", "discretized", "final"}
    assert all("eval_loss" in found for found in learned.metrics.values())
    learned.metrics["search"]["eval_loss"] = 0.4
    assert learned.warnings == []
    assert "warning" not in str(learned)
    learned.metrics["search"]["eval_loss"] = 0.67
    (message,) = learned.warnings
    assert "the loss is 0.670, and that of a guess 0.693" in message
    assert f"warning: {message}" in str(learned)
    learned.model.config.num_labels = 3
    assert learned.warnings == [], "a guess among three has 1.099"
    learned.model.config.problem_type = "multi_label_classification"
    learned.metrics["search"]["eval_loss"] = 9.0
    assert learned.warnings == []


def test_a_search_that_missed_its_budget_is_told(tmp_path):
    learned = learn(tmp_path, 0.7, steps=4)
    learned.metrics["search"]["eval_loss"] = 0.4
    assert learned.expected_sparsity < 0.6
    (message,) = learned.warnings
    aim = 1 - learned.history[-1]["target"]
    expected = (
        f"expect a sparsity of {learned.expected_sparsity:.3f}, where they aimed at {aim:.3f}"
    )
    assert expected in message
    assert aim > 0.7
    assert f"warning: {message}" in str(learned)
    assert learned.to_json()["warnings"] == [message]


def test_a_plan_that_misses_its_target_names_the_way_out(tmp_path):
    trainer = {**TRAINER, "eval_dataset": rows(64, seed=9, longest=12)}
    options = {"arguments": arguments(tmp_path, 100), "trainer": trainer, "search_steps": 0.8}
    learned = learn_degrees(classifier(), rows(), 0.7, **options)
    learned.metrics["search"]["eval_loss"] = 0.4
    (message,) = learned.warnings
    assert f"measured sparsity {learned.measured_sparsity:.3f} is not the target 0.700" in message
    assert "the target was met on the training texts, of 17." in message
    assert "and the evaluation texts have 11." in message
    assert "--budget-split evaluation" in message
    options |= {"arguments": arguments(tmp_path, 4), "budget_split": "evaluation"}
    mended = learn_degrees(classifier(), rows(), 0.6, **options)
    assert not any("is not the target" in message for message in mended.warnings)
    coarse = learn_degrees(classifier(), rows(), 0.6, **options, over="neighbor(degrees=[0, 20])")
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


def test_what_is_printed_says_which_heads_use_what(tmp_path):
    learned = learn(tmp_path, 0.55, steps=12, dense_layers="1")
    first, *table = kind_lines(learned.discretized)
    shares = learned.discretized.shares
    assert (
        first
        == "of the pairs that are kept, over 96 texts of the budget: "
        + ", ".join(
            f"{name} {shares[name]:.0%}" for name in ("neighbor", "similarity", "global", "always")
        )
        + " (a pair of several kinds counts for the first of them)"
    )
    header, *rows_ = (line.split() for line in table)
    assert header == ["heads", "of", "layer", "0", "2", "all"]
    plan = learned.plan.resolve([4] * 3)
    for (name, *counts), part in zip(
        rows_, ("neighbor(", "similarity(", "global(", "self()"), strict=True
    ):
        using = [sum(len(h) for h, p in plan[layer] if part in str(p)) for layer in (0, 2)]
        assert name == part.partition("(")[0].replace("self", "off")
        assert counts == [*map(str, using), str(sum(using)), "of", "8"]
    assert all(line in str(learned) for line in (first, *table))
    assert len({len(line) for line in table}) == 1, "columns are aligned"
    values = learned.to_json()
    assert values["share_of_kept_pairs"] == shares
    assert values["over"] == ["neighbor(degrees=[0, 1, 2, 4, 8, 16, 32])", SIMILARITY]
    assert set(values["chances"]) == {"neighbor", "similarity", "global"}


def test_the_picture_has_a_marker_for_each_kind_of_each_head(tmp_path):
    learned = learn(tmp_path, 0.7, steps=4, over="neighbor, random, similarity")
    figure, chosen = sa.plots.degrees(learned), learned.discretized.chosen
    axes = figure.axes[0]
    candidates = learned.costs.candidates
    drawn = {each.get_label().partition(":")[0]: each for each in axes.collections}
    assert list(drawn) == ["neighbor", "random", "similarity", "global", "off"]
    for index, name in enumerate(candidates.names):
        places = chosen[:, :, index].nonzero().tolist()
        found = drawn[name].get_offsets().round().astype(int)[:, ::-1].tolist()
        assert found == places
        sizes = drawn[name].get_sizes()
        levels = [int(chosen[layer, head, index]) for layer, head in places]
        if name != "global":
            assert [sorted(set(levels)).index(level) for level in levels] == [
                sorted(set(sizes)).index(size) for size in sizes
            ]
    assert len(drawn["off"].get_offsets()) == int((chosen == 0).all(-1).sum())
    degrees = [
        f"{of[level]:g}"
        for index, of in enumerate(candidates.degrees)
        for level in chosen[:, :, index].flatten().tolist()
        if level
    ]
    assert sorted(text.get_text() for text in axes.texts) == sorted(degrees)
    figure.canvas.draw()
    inside = axes.get_window_extent()
    for text in axes.texts:
        box = text.get_window_extent()
        assert inside.y0 < box.y0
        assert box.y1 < inside.y1
    shown = [each.get_label() for each in axes.collections] + [axes.get_xlabel()]
    named = [int(found[1]) for text in shown if (found := re.search(r"(\d+)% of the pairs", text))]
    shares = learned.discretized.shares
    assert named == [round(100 * share) for share in shares.values()]
    assert abs(sum(named) - 100) <= len(named) / 2


def test_a_learned_plan_reloads_and_gives_the_same_logits(tmp_path):
    learned = learn(tmp_path / "run", steps=6)
    written = learned.save(tmp_path / "out")
    assert [path.name for path in written] == ["plan.json", "model", "learned.json", "degrees.png"]
    inputs = {name: each for name, each in collate(HELD_OUT).items() if name != "labels"}
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
    for result in results:
        report = sa.describe(result.model, collate(HELD_OUT))
        assert report.sparsity == pytest.approx(sparsity_of(result))
    first, last = (dict(result.model.named_parameters()) for result in results)
    assert not torch.equal(first["classifier.weight"], last["classifier.weight"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"granularity": "heads"}, "unknown granularity 'heads' .did you mean 'head'.*head, layer"),
        ({"over": "nonsense"}, "unknown ranking 'nonsense'; choose from: dependency, elastic, nei"),
        ({"candidates": (0, 1)}, "unknown option 'candidates'; choose from: over, granularity, gl"),
        ({"search_steps": 1.0}, "search_steps 1.0 must be between 0 and 1"),
        ({"warmup": 1.5}, "warmup 1.5 must be from 0 to below 1"),
        ({"temperature_end": 0.0}, "temperature_end 0.0 must be above 0"),
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
        (0.99, {}, PlanError, r"0.99 cannot be reached.*keeps itself, so the highest is 0\.\d+"),
        (0.01, {"over": "random"}, PlanError, r"below what the largest degrees give.*is 0\.\d+$"),
        (0.5, {"over": "dependency"}, AnnotationError, "needs 'words'.*Annotator"),
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
    options = {"over": changes.pop("over", "neighbor")}
    how = arguments(tmp_path, **changes)
    with pytest.raises(error, match=message):
        learn_degrees(model, data, sparsity, arguments=how, trainer=TRAINER, **options)


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


def test_few_steps_reach_a_budget_however_small(tmp_path):
    data = rows(48, longest=64)
    options = {"arguments": arguments(tmp_path, 100), "trainer": {"data_collator": collate}}
    learned = learn_degrees(classifier(), data, 0.9, **options)
    assert learned.history[-1]["density"] == pytest.approx(0.1, rel=0.1)


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
