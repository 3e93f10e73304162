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
from sparseattn.errors import PatternError, PlanError, SpecError
from sparseattn.pattern import catalogue
from tests.degrees.small import arguments, classifier, collate, rows

OWN = "neighbor(degrees=[0, 1, 2, 3, 4, 6, 8, 24])"
CALIBRATED = f"calibrated(sparsity=0.7, over=['{OWN}', similarity])"
SPECS = {
    "learned": "learned(sparsity=0.7, over=[random, neighbor], off=false)",
    "calibrated": CALIBRATED,
    "uniform": "uniform(sparsity=0.7)",
    "longformer": "longformer(sparsity=0.7)",
    "bigbird": "bigbird(sparsity=0.7)",
    "retrained": "retrained(arm=learned(sparsity=0.7))",
    "shuffled": "shuffled(arm=calibrated(sparsity=0.7), seed=3, within=layer)",
}
FIXED = ["uniform", "bigbird", "longformer"]


def context(folder, steps=4):
    return Context(classifier(), None, rows(), collate, arguments(folder, steps), steps)


def plan_of(spec, folder):
    return parse_method(spec).apply(context(folder)).plan


def by_head(plan):
    """Patterns of each layer, head by head."""
    layers = [{h: str(p) for members, p in g for h in members} for g in plan.resolve([4] * 3)]
    return [[layer[head] for head in range(4)] for layer in layers]


def measured(plan, data):
    tokens = Texts(classifier(), data, collate, 1000).tokens(plan)
    return MeasuredSparsity.of(plan, tokens, [4] * 3).sparsity


def test_every_method_has_a_spec_and_knows_whether_a_pattern_has_its_name():
    assert set(SPECS) == set(methods)
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
def test_dense_layers_have_one_spelling(given):
    made = parse_method(f"learned(sparsity=0.7, dense_layers={given}, warmup=0.3)")
    assert str(made) == "learned(sparsity=0.7, warmup=0.3, dense_layers='0,-1')"
    assert parse_method(str(made)) == made
    assert str(parse_method("learned(0.7, dense_layers=':2')")).endswith("dense_layers=':2')")


@pytest.mark.parametrize("name", ["learned", "calibrated"])
@pytest.mark.parametrize(
    "given", ["neighbor", "'neighbor'", "[neighbor]", "['neighbor()']", "' neighbor'"]
)
def test_rankings_have_one_spelling(name, given):
    made = parse_method(f"{name}(sparsity=0.7, over={given})")
    assert str(made) == f"{name}(sparsity=0.7, over=[neighbor])"
    assert parse_method(str(made)) == made
    both = parse_method(f"{name}(0.7, over='neighbor, similarity')")
    assert str(both) == f"{name}(sparsity=0.7)" == str(parse_method(f"{name}(0.7)"))
    several = f"{name}(sparsity=0.7, over=['random(degrees=[0, 1])', neighbor])"
    assert str(parse_method(several)) == several


@pytest.mark.parametrize("name", ["learned", "calibrated"])
def test_methods_need_what_their_rankings_need(name):
    def needs(over, more=""):
        return parse_method(f"{name}(0.7, over={over}{more})").needs

    assert needs("[neighbor, random]", ", globals=2") == frozenset()
    assert needs("[neighbor]") == needs("[elastic]") == sa.parse("global(cls)").needs
    assert needs("[similarity]") >= {"embedding", "special"}
    assert needs("[neighbor, dependency]") >= {"words", "heads"}
    arm = f"shuffled(retrained({name}(0.7, over=[dependency])))"
    assert parse_method(arm).needs == needs("[dependency]")


@pytest.mark.parametrize("name", ["learned", "calibrated"])
def test_layers_stay_dense_and_no_degree_exceeds_the_largest(tmp_path, name):
    over = "['neighbor(degrees=[0, 1, 2, 4])']"
    plan = plan_of(f"{name}(sparsity=0.45, over={over}, dense_layers=0)", tmp_path)
    first, *others = by_head(plan)
    assert set(first) == {"full()"}
    allowed = {f"neighbor(radius={radius}) | global(cls)" for radius in (1, 2, 4)}
    allowed |= {"global(cls)"}
    if name == "learned":  # whose heads may do without the global tokens
        allowed |= {"self()", *(each.removesuffix(" | global(cls)") for each in allowed)}
    assert {pattern for layer in others for pattern in layer} <= allowed
    assert abs(measured(plan, rows()) - 0.45) < 0.02


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
    ("text", "error", "message"),
    [
        ("learnt(sparsity=0.7)", SpecError, r"unknown method 'learnt' .did you mean 'learned'"),
        ("uniform(0.7, radius=2)", PatternError, r"uniform\(\): unknown argument 'radius'; choose"),
        ("uniform()", PatternError, r"uniform\(\) needs the argument 'sparsity'"),
        ("uniform(0.7, sparsity=0.7)", PatternError, "argument 'sparsity' is given twice"),
        ("uniform(1, 2, 3, 4, 5)", PatternError, r"uniform\(\) takes at most 4 arguments"),
        ("uniform(sparsity=0.7", SpecError, r"expected ',', found the end; at column 21"),
        ("uniform(sparsity=1 + 1)", SpecError, r"unexpected '\+'; at column 20"),
        ("0.7", SpecError, "expected a method, found '0.7'"),
        ("learned(0.7) | learned(0.8)", SpecError, r"'\|' does not join methods"),
        ("learned(sparsity=1.5)", PlanError, r"learned\(\): sparsity 1.5 must be a number between"),
        ("uniform(0)", PlanError, r"uniform\(\): sparsity 0 must be a number between 0 and 1"),
        ("uniform(true)", PlanError, "sparsity True must be a number between 0 and 1"),
        ("calibrated(high)", PlanError, "sparsity 'high' must be a number between 0 and 1"),
        ("learned(0.5, dense_layers=x)", PlanError, r"learned\(\): layer or head selection 'x'"),
        ("learned(0.5, over=[near])", PlanError, r"learned\(\): unknown ranking 'near'"),
        ("calibrated(0.5, over='random([0, x])')", PlanError, "random: 'x' of its degrees is not"),
        ("calibrated(0.5, off=true)", PatternError, "unknown argument 'off'"),
        ("uniform(0.7, budget_split=dev)", PlanError, r"uniform\(\): unknown budget_split 'dev'"),
        ("uniform(0.7, empty_last_layers=-1)", PlanError, "must be a whole number >= 0; got -1"),
        ("bigbird(0.7, empty_last_layers=true)", PlanError, r"bigbird\(\): empty_last_layers must"),
        ("uniform(0.7, empty_last_layers=1.5)", PlanError, "whole number >= 0; got 1.5"),
        ("shuffled(0.7)", PlanError, r"shuffled\(\) takes a method such as learned.*, got 0.7"),
        ("shuffled(uniform(0.7), within=heads)", PlanError, "'heads'; choose from: model, layer"),
        ("shuffled(uniform(0.7), seed=-1)", PlanError, "seed -1 must be a whole number >= 0"),
    ],
)
def test_wrong_calls(text, error, message):
    with pytest.raises(error, match=message):
        parse_method(text)


@pytest.mark.parametrize("name", SPECS)
def test_budgets_are_met_on_training_texts(tmp_path, name):
    made = context(tmp_path)
    applied = parse_method(SPECS[name]).apply(made)
    assert abs(measured(applied.plan, rows()) - 0.7) < 0.02
    assert abs(measured(applied.plan, rows(64, seed=9)) - 0.7) < 0.02
    assert applied.steps == len(applied.history) == (2 if name == "learned" else 0)
    assert sa.models.state.attached_state(made.model) is None


@pytest.mark.parametrize(
    "text",
    [
        "learned(sparsity=0.7, budget_split=evaluation)",
        "calibrated(sparsity=0.7, budget_split=evaluation)",
        "uniform(sparsity=0.7, budget_split=evaluation)",
        "shuffled(arm=learned(sparsity=0.7, budget_split=evaluation))",
    ],
)
def test_budgets_are_met_on_evaluation_texts_that_are_longer(tmp_path, text):
    train, longer = rows(longest=12), rows(64, seed=9, longest=40)
    made = replace(context(tmp_path), data=train, evaluation=longer)
    plan = parse_method(text).apply(made).plan
    assert abs(measured(plan, longer) - 0.7) < 0.02
    assert abs(measured(plan, train) - 0.7) > 0.05
    with pytest.raises(PlanError, match="budget_split='evaluation' needs evaluation texts"):
        parse_method(text).apply(replace(made, evaluation=None))


@pytest.mark.parametrize("name", FIXED)
def test_fractions_are_met_by_splitting_heads(tmp_path, name):
    layers = by_head(plan_of(f"{name}(sparsity=0.68)", tmp_path))
    assert len(Counter(pattern for layer in layers for pattern in layer)) == 2
    assert max(len(set(layer)) for layer in layers) == 2


@pytest.mark.parametrize("name", FIXED)
def test_empty_layers_keep_the_lowest_and_the_others_get_their_pairs(tmp_path, name):
    plain = plan_of(f"{name}(sparsity=0.6)", tmp_path)
    emptied = plan_of(f"{name}(sparsity=0.6, empty_last_layers=1)", tmp_path)
    assert set(by_head(emptied)[-1]) == {str(methods[name](0.6).step(0))}
    for plan in (plain, emptied):
        assert abs(measured(plan, rows()) - 0.6) < 0.02
    texts = Texts(classifier(), rows(), collate, 1000)
    parse_method(f"{name}(sparsity=0.6, empty_last_layers=2)").check(texts)
    too_many = parse_method(f"{name}(sparsity=0.6, empty_last_layers=3)")
    with pytest.raises(PlanError, match="empty_last_layers=3, and the model has 3 layers"):
        too_many.check(texts)
    with pytest.raises(PlanError, match="empty_last_layers=3, and the model has 3 layers"):
        too_many.apply(context(tmp_path))


def test_bigbird_keeps_its_proportions():
    patterns = [(p.radius, p.random) for p in map(methods["bigbird"](0.5).step, range(8))]
    assert patterns == [(0, 0), (0, 1), (1, 1), (1, 2), (1, 3), (2, 3), (2, 4), (2, 5)]


@pytest.mark.parametrize("name", [*FIXED, "calibrated", "learned"])
def test_what_cannot_be_reached_is_refused(tmp_path, name):
    with pytest.raises(PlanError, match=r"(no more than|the highest is) 0\.\d\d\d"):
        plan_of(f"{name}(sparsity=0.99)", tmp_path)


def test_shuffling_keeps_the_degrees_of_the_model_or_of_each_layer(tmp_path):
    plain, moved, other, within = (
        by_head(plan_of(spec, tmp_path))
        for spec in (
            CALIBRATED,
            f"shuffled({CALIBRATED})",
            f"shuffled({CALIBRATED}, seed=1)",
            f"shuffled({CALIBRATED}, within=layer)",
        )
    )
    assert plain != moved != other
    assert plain != within
    flat = [
        sorted(p for layer in layers for p in layer) for layers in (plain, moved, other, within)
    ]
    assert all(patterns == flat[0] for patterns in flat)
    assert [sorted(layer) for layer in within] == [sorted(layer) for layer in plain]
    assert [sorted(layer) for layer in moved] != [sorted(layer) for layer in plain]


def test_only_learned_degrees_train_the_model_and_controls_keep_its_plan(tmp_path):
    inner = "learned(sparsity=0.7)"
    plans = {}
    for spec in (inner, f"shuffled({inner})", f"retrained({inner})"):
        made = context(tmp_path)
        before = made.model.classifier.weight.detach().clone()
        applied = parse_method(spec).apply(made)
        trained = not torch.equal(made.model.classifier.weight, before)
        assert trained == (applied.steps == 2) == spec.startswith("learned")
        plans[spec] = applied.plan
    assert plans[f"retrained({inner})"] == plans[inner]
