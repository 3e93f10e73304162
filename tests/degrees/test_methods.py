"""Methods: their spelling, their budgets, and their share of the training steps."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

import sparseattn as sa
from sparseattn.counting import MeasuredSparsity
from sparseattn.degrees.method import Context, is_method, methods, parse_method
from sparseattn.degrees.texts import Texts
from sparseattn.errors import PlanError, SpecError
from sparseattn.pattern import catalogue
from tests.degrees.small import arguments, classifier, collate, rows

SPECS = {
    "learned": "learned(sparsity=0.7, form=irregular)",
    "calibrated": "calibrated(sparsity=0.7, menu=[0, 1, 2, 3, 4, 6, 8, 24])",
    "uniform": "uniform(sparsity=0.7)",
    "longformer": "longformer(sparsity=0.7)",
    "bigbird": "bigbird(sparsity=0.7)",
    "restarted": "restarted(arm=learned(sparsity=0.7))",
    "shuffled": "shuffled(arm=calibrated(sparsity=0.7), seed=3, within=layer)",
}


def context(folder, steps=4):
    return Context(classifier(), None, rows(), collate, arguments(folder, steps), steps, seed=0)


def realised(plan, data):
    return MeasuredSparsity.of(
        plan, Texts(classifier(), data, collate, 1000).tokens(plan), [4] * 3
    ).sparsity


def test_every_method_has_a_spec():
    assert set(SPECS) == set(methods)


def test_methods_know_whether_a_pattern_has_their_name():
    for name, kind in methods.items():
        assert kind.also_pattern == (name in catalogue)


@pytest.mark.parametrize("name", SPECS)
def test_methods_print_and_parse_back(name):
    assert is_method(SPECS[name])
    made = parse_method(SPECS[name])
    assert made.name == name
    assert str(made) == SPECS[name]
    assert parse_method(str(made)) == made


@pytest.mark.parametrize("given", ["[0, -1]", "'0,-1'", "['0', -1]"])
def test_layers_that_stay_dense_have_one_spelling(given):
    made = parse_method(f"learned(sparsity=0.7, dense={given}, largest=8)")
    assert str(made) == "learned(sparsity=0.7, dense='0,-1', largest=8)"
    assert parse_method(str(made)) == made
    assert str(parse_method("learned(sparsity=0.7, dense=':2')")).endswith("dense=':2')")


@pytest.mark.parametrize("name", ["learned", "calibrated"])
def test_layers_stay_dense_and_no_radius_exceeds_the_largest(tmp_path, name):
    text = f"{name}(sparsity=0.45, dense=0, largest=4)"
    plan = parse_method(text).apply(context(tmp_path)).plan
    first, *others = plan.resolve([4] * 3)
    assert [str(p) for _, p in first] == ["full()"]
    found = {str(p) for groups in others for _, p in groups}
    assert found <= {f"neighbor(radius={radius}) | global(cls)" for radius in (0, 1, 2, 4)}
    assert abs(realised(plan, rows()) - 0.45) < 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("dense=x", r"learned\(\): layer or head selection 'x' does not parse"),
        ("largest=0", r"learned\(\): largest 0 must be a whole number of tokens >= 1"),
        ("largest=2.5", r"learned\(\): largest 2.5 must be a whole number"),
        ("largest=4, menu=[0, 1]", "give one, menu or largest"),
        ("menu=[0, x]", r"menu \[0, 'x'\]: 'x' is not a number"),
    ],
)
def test_wrong_layers_and_radii(options, message):
    with pytest.raises(PlanError, match=message):
        parse_method(f"learned(sparsity=0.5, {options})")


@pytest.mark.parametrize(
    "text",
    [
        "bigbird(radius=1, random=2)",
        "longformer(3)",
        "dense",
        "neighbor(2) | global(cls)",
        "f(",
        "",
    ],
)
def test_patterns_are_no_methods(text):
    assert not is_method(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learnt(sparsity=0.7)", r"unknown method 'learnt' .did you mean 'learned'"),
        ("uniform(sparsity=0.7, radius=2)", r"uniform\(\): unknown argument 'radius'"),
        ("uniform()", r"uniform\(\) needs the argument 'sparsity'"),
        ("uniform(0.7, sparsity=0.7)", "sparsity is given twice"),
        ("uniform(1, 2, 3, 4, 5)", r"uniform\(\) takes at most 4 arguments"),
        ("uniform(sparsity=0.7", "does not parse"),
        ("uniform(sparsity=1 + 1)", "expected a value at column 18"),
        ("0.7", "expected a method"),
    ],
)
def test_wrong_calls(text, message):
    with pytest.raises(SpecError, match=message):
        parse_method(text)


@pytest.mark.parametrize("value", ["1.5", "0", "true", "high"])
def test_wrong_sparsities(value):
    with pytest.raises(PlanError, match="must be a number between 0 and 1"):
        parse_method(f"learned(sparsity={value})")


def test_shuffled_takes_a_method():
    with pytest.raises(PlanError, match=r"shuffled\(\) takes a method"):
        parse_method("shuffled(0.7)")


@pytest.mark.parametrize("name", SPECS)
def test_budgets_are_met_on_training_texts(tmp_path, name):
    made = context(tmp_path)
    applied = parse_method(SPECS[name]).apply(made)
    assert abs(realised(applied.plan, rows()) - 0.7) < 0.02
    assert abs(realised(applied.plan, rows(64, seed=9)) - 0.7) < 0.02
    assert applied.steps == len(applied.history) == (2 if name == "learned" else 0)
    assert sa.models.state.attached_state(made.model) is None


@pytest.mark.parametrize(
    "text",
    [
        "learned(sparsity=0.7, over=evaluation)",
        "calibrated(sparsity=0.7, over=evaluation)",
        "uniform(sparsity=0.7, over=evaluation)",
        "shuffled(arm=learned(sparsity=0.7, over=evaluation))",
    ],
)
def test_budgets_are_met_on_evaluation_texts_that_are_longer(tmp_path, text):
    train, longer = rows(longest=12), rows(64, seed=9, longest=40)
    made = replace(context(tmp_path), data=train, evaluation=longer)
    plan = parse_method(text).apply(made).plan
    assert abs(realised(plan, longer) - 0.7) < 0.02
    assert abs(realised(plan, train) - 0.7) > 0.05
    with pytest.raises(PlanError, match="evaluation"):
        parse_method(text).apply(replace(made, evaluation=None))


def test_over_is_one_of_two():
    with pytest.raises(PlanError, match=r"uniform\(\): unknown over 'dev'"):
        parse_method("uniform(sparsity=0.7, over=dev)")


@pytest.mark.parametrize("name", ["uniform", "bigbird", "longformer"])
def test_fractions_are_met_by_splitting_heads(tmp_path, name):
    plan = parse_method(f"{name}(sparsity=0.68)").apply(context(tmp_path)).plan
    patterns = Counter(str(p) for g in plan.resolve([4] * 3) for heads, p in g for _ in heads)
    assert len(patterns) == 2
    by_layer = [len(groups) for groups in plan.resolve([4] * 3)]
    assert max(by_layer) == 2


@pytest.mark.parametrize("name", ["uniform", "bigbird", "longformer"])
def test_spared_layers_keep_the_lowest_and_the_others_get_their_pairs(tmp_path, name):
    plain, spared = (
        parse_method(f"{name}(sparsity=0.6{more})").apply(context(tmp_path)).plan
        for more in ("", ", spare=1")
    )
    method = methods[name](0.6)
    *_, last = spared.resolve([4] * 3)
    assert [str(p) for _, p in last] == [str(method.rung(0))]
    for plan in (plain, spared):
        assert abs(realised(plan, rows()) - 0.6) < 0.02
    texts = Texts(classifier(), rows(), collate, 1000)
    parse_method(f"{name}(sparsity=0.6, spare=2)").check(texts)
    with pytest.raises(PlanError, match="it spares 3 layers, and there are 3"):
        parse_method(f"{name}(sparsity=0.6, spare=3)").check(texts)
    with pytest.raises(PlanError, match="it spares 3 layers, and there are 3"):
        parse_method(f"{name}(sparsity=0.6, spare=3)").apply(context(tmp_path))
    for wrong in ("-1", "true", "1.5"):
        with pytest.raises(PlanError, match=rf"{name}\(\): spare must be a whole number >= 0; got"):
            parse_method(f"{name}(sparsity=0.6, spare={wrong})")


def test_bigbird_keeps_its_proportions():
    method = methods["bigbird"](0.5)
    rungs = [(p.radius, p.random) for p in map(method.rung, range(8))]
    assert rungs == [(0, 0), (0, 1), (1, 1), (1, 2), (1, 3), (2, 3), (2, 4), (2, 5)]


@pytest.mark.parametrize("name", ["uniform", "bigbird", "longformer", "calibrated", "learned"])
def test_what_cannot_be_reached_is_refused(tmp_path, name):
    with pytest.raises(PlanError, match=r"(no more than|the highest is) 0\.\d\d\d"):
        parse_method(f"{name}(sparsity=0.99)").apply(context(tmp_path))


def test_shuffling_deals_out_the_same_degrees(tmp_path):
    def dealt(spec):
        plan = parse_method(spec).apply(context(tmp_path)).plan
        return [
            {head: str(p) for members, p in groups for head in members}
            for groups in plan.resolve([4] * 3)
        ]

    inner = "calibrated(sparsity=0.7, menu=[0, 1, 2, 3, 4, 6, 8, 24])"
    plain, one, other = (
        dealt(spec) for spec in (inner, f"shuffled({inner})", f"shuffled({inner}, seed=1)")
    )
    assert plain != one != other
    multisets = [
        sorted(p for layer in plan for p in layer.values()) for plan in (plain, one, other)
    ]
    assert multisets[0] == multisets[1] == multisets[2]


def test_shuffling_within_layers_leaves_each_its_degrees(tmp_path):
    def dealt(spec):
        plan = parse_method(spec).apply(context(tmp_path)).plan
        return [
            [str(p) for head in range(4) for members, p in groups if head in members]
            for groups in plan.resolve([4] * 3)
        ]

    inner = "calibrated(sparsity=0.7, menu=[0, 1, 2, 3, 4, 6, 8, 24])"
    plain, moved = dealt(inner), dealt(f"shuffled({inner}, within=layer)")
    assert plain != moved
    assert [sorted(layer) for layer in plain] == [sorted(layer) for layer in moved]
    over_all = dealt(f"shuffled({inner})")
    assert [sorted(layer) for layer in plain] != [sorted(layer) for layer in over_all]


def test_shuffling_within_something_else_is_refused():
    with pytest.raises(PlanError, match=r"within 'heads': choose from: model, layer"):
        parse_method("shuffled(calibrated(sparsity=0.7), within=heads)")


def test_restarting_keeps_the_plan_and_the_untrained_model(tmp_path):
    learned = parse_method("learned(sparsity=0.7)").apply(context(tmp_path))
    restarted = parse_method("restarted(learned(sparsity=0.7))").apply(context(tmp_path))
    assert restarted.plan == learned.plan
    assert (learned.steps, restarted.steps) == (2, 0)


def test_only_learned_degrees_train_the_model(tmp_path):
    inner = "learned(sparsity=0.7)"
    for spec in (inner, f"shuffled({inner})", f"restarted({inner})"):
        made = context(tmp_path)
        before = made.model.classifier.weight.detach().clone()
        applied = parse_method(spec).apply(made)
        trained = not torch.equal(made.model.classifier.weight, before)
        assert trained == (applied.steps > 0) == spec.startswith("learned")
