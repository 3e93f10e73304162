"""Plans meet the budget that they were made for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparseattn import Plan, TokenBatch
from sparseattn.counting import MeasuredSparsity, count_plan
from sparseattn.degrees.candidates import Candidates
from sparseattn.degrees.cost import Costs
from sparseattn.degrees.discretize import irregular, regular
from sparseattn.errors import PlanError

HEADS, WINDOWS = [12] * 6, [None] * 6


def texts(seed, low, high, count=64):
    draw = np.random.default_rng(seed)
    lengths = draw.integers(low, high + 1, count).tolist()
    return [TokenBatch.of_lengths(*lengths[start : start + 64]) for start in range(0, count, 64)]


def costs_of(candidates, batches):
    return Costs.of(candidates, batches, HEADS, WINDOWS)


def log_chances(candidates, seed=0, groups=12):
    logits = torch.randn(6, groups, len(candidates), generator=torch.Generator().manual_seed(seed))
    return (2 * logits).log_softmax(-1)


def importance(candidates, groups=12):
    return log_chances(candidates, groups=groups).exp().cumsum(-1)


def sparsity_of(plan, batches):
    return MeasuredSparsity.of(plan, batches, HEADS).sparsity


@pytest.mark.parametrize("sparsity", [0.6, 0.7, 0.78, 0.84])
def test_regular_plans_meet_the_sparsity_within_half_a_point(sparsity):
    candidates = Candidates.up_to(40)
    train, held_out = texts(0, 10, 40, 512), texts(1, 10, 40, 256)
    made = regular(importance(candidates), costs_of(candidates, train), sparsity)
    assert 0 <= sparsity_of(made.plan, train) - sparsity < 0.005
    assert abs(sparsity_of(made.plan, held_out) - sparsity) < 0.005


def test_the_heads_of_a_layer_may_share_a_radius():
    candidates = Candidates((0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16))
    train = texts(0, 10, 40)
    plan = regular(importance(candidates, groups=1), costs_of(candidates, train), 0.7).plan
    assert all(len(groups) == 1 for groups in plan.resolve(HEADS))
    assert abs(sparsity_of(plan, train) - 0.7) < 0.02


def test_elastic_radii_hold_the_sparsity_over_lengths():
    train = texts(0, 32, 128)
    spread = {}
    for elastic in (False, True):
        candidates = Candidates.up_to(128, elastic=elastic, globals=())
        plan = regular(importance(candidates), costs_of(candidates, train), 0.8).plan
        by_length = MeasuredSparsity.of(plan, train, HEADS).by_length()
        spread[elastic] = np.ptp(list(by_length.values()))
    assert spread[False] > 0.1
    assert spread[True] < 0.03


@pytest.mark.parametrize(("length", "points"), [(64, 1.0), (256, 0.5), (300, 0.5)])
@pytest.mark.parametrize("sparsity", [0.7, 0.9])
@pytest.mark.parametrize("seed", [0, 1])
def test_irregular_plans_meet_their_sparsity_at_any_length(length, points, sparsity, seed):
    candidates, tokens = Candidates.up_to(length), [TokenBatch.of_lengths(length)]
    costs = costs_of(candidates, tokens)
    plan = irregular(log_chances(candidates, seed), costs, sparsity, seed).plan
    assert abs(sparsity_of(plan, tokens) - sparsity) * 100 < points


def test_irregular_plans_depend_on_the_seed_and_on_nothing_else():
    candidates, train = Candidates.up_to(40), texts(0, 10, 40)
    costs = costs_of(candidates, train)
    one, same, other = (
        irregular(log_chances(candidates), costs, 0.7, seed).plan for seed in (0, 0, 1)
    )
    assert one == same
    assert one != other
    assert Plan.from_json(one.to_json()) == one
    with pytest.raises(PlanError, match=r"^this plan was made for a model of \d layers of"):
        Plan.from_json(one.to_json()).resolve([*HEADS, 4])
    together = one.compile(TokenBatch.of_lengths(17, 9), HEADS).layers
    alone = one.compile(TokenBatch.of_lengths(9), HEADS).layers
    for whole, part in zip(together, alone, strict=True):
        assert torch.equal(whole.dense[1:, :, :9, :9], part.dense)


def test_windows_alone_leave_the_global_tokens_out():
    candidates = Candidates.up_to(40)
    costs = costs_of(candidates, texts(0, 10, 40))
    for made in (
        regular(importance(candidates), costs, 0.7),
        irregular(log_chances(candidates), costs, 0.7),
    ):
        assert "global" in str(made.plan)
        assert str(made.plan).replace(" | global(cls)", "") == str(made.windows)


def test_measured_sparsity_is_that_of_the_report():
    tokens = TokenBatch.of_lengths(9, 4, 12)
    plan = Plan.of({0: "random(2)", 1: {"0,2": "random(2)", "1": "neighbor(1)"}, 2: "global(cls)"})
    measured = MeasuredSparsity.of(plan, [tokens], [3] * 4, [None, 3, None, 2])
    report = count_plan(plan, tokens, [3] * 4, [None, 3, None, 2])
    assert measured.allowed.sum(dim=0).tolist() == [layer.allowed for layer in report.layers]
    assert measured.valid.sum(dim=0).tolist() == [layer.valid for layer in report.layers]
    assert measured.by_layer == [layer.sparsity for layer in report.layers]
    assert (measured.sparsity, measured.mean_degree) == (report.sparsity, report.mean_degree)
    assert measured.on_layers([1]).mean_degree == report.layers[1].mean_degree


def test_sparsity_by_length():
    tokens = [TokenBatch.of_lengths(10, 20), TokenBatch.of_lengths(20)]
    measured = MeasuredSparsity.of(Plan.of("self()"), tokens, [1])
    assert measured.by_length() == pytest.approx({"1-16": 0.9, "17-32": 0.95})
    assert measured.by_length(edges=(5,)) == pytest.approx({"6-20": 1 - 50 / 900})
