"""Hard plans meet the budget that they were made for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparseattn import Plan, TokenBatch
from sparseattn.counting import MeasuredSparsity, count_plan
from sparseattn.degrees.candidates import Candidates
from sparseattn.degrees.cost import Costs
from sparseattn.degrees.diagnostics import Diagnostics
from sparseattn.degrees.discretize import irregular_plan, regular_choice, regular_plan
from sparseattn.errors import PlanError

HEADS, WINDOWS = [12] * 6, [None] * 6


def texts(seed, low, high, count=64):
    draw = np.random.default_rng(seed)
    lengths = draw.integers(low, high + 1, count).tolist()
    return [TokenBatch.of_lengths(*lengths[start : start + 64]) for start in range(0, count, 64)]


def values(menu, seed=0, groups=12):
    logits = torch.randn(6, groups, len(menu), generator=torch.Generator().manual_seed(seed))
    return (2 * logits).log_softmax(-1)


@pytest.mark.parametrize("sparsity", [0.6, 0.7, 0.78, 0.84])
def test_regular_plans_meet_the_sparsity_within_half_a_point(sparsity):
    menu = Candidates.up_to(40)
    train, held_out = texts(0, 10, 40, 512), texts(1, 10, 40, 256)
    costs = Costs.of(menu, train, HEADS, WINDOWS)
    choice = regular_choice(values(menu).exp().cumsum(-1), costs, sparsity)
    plan = regular_plan(choice, menu, costs)
    assert 0 <= MeasuredSparsity.of(plan, train, HEADS).sparsity - sparsity < 0.005
    assert abs(MeasuredSparsity.of(plan, held_out, HEADS).sparsity - sparsity) < 0.005


def test_shared_layers_get_one_radius():
    menu = Candidates((0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16))
    train = texts(0, 10, 40)
    costs = Costs.of(menu, train, HEADS, WINDOWS)
    choice = regular_choice(values(menu, groups=1).exp().cumsum(-1), costs, 0.7)
    plan = regular_plan(choice, menu, costs)
    assert all(len(groups) == 1 for groups in plan.resolve(HEADS))
    assert abs(MeasuredSparsity.of(plan, train, HEADS).sparsity - 0.7) < 0.02


def test_an_elastic_menu_holds_the_sparsity_over_lengths():
    train = texts(0, 32, 128)
    found = {}
    for elastic in (False, True):
        menu = Candidates.up_to(128, elastic=elastic, globals=())
        costs = Costs.of(menu, train, HEADS, WINDOWS)
        choice = regular_choice(values(menu).exp().cumsum(-1), costs, 0.8)
        plan = regular_plan(choice, menu, costs)
        found[elastic] = list(MeasuredSparsity.of(plan, train, HEADS).by_length().values())
    assert np.ptp(found[False]) > 0.1
    assert np.ptp(found[True]) < 0.03


@pytest.mark.parametrize(("length", "points"), [(64, 1.0), (256, 0.5), (300, 0.5)])
@pytest.mark.parametrize("sparsity", [0.7, 0.9])
@pytest.mark.parametrize("seed", [0, 1])
def test_irregular_plans_realise_their_sparsity_at_any_length(length, points, sparsity, seed):
    menu = Candidates.up_to(length)
    tokens = [TokenBatch.of_lengths(length)]
    costs = Costs.of(menu, tokens, HEADS, WINDOWS)
    plan = irregular_plan(values(menu, seed), menu, costs, sparsity, seed)
    assert abs(MeasuredSparsity.of(plan, tokens, HEADS).sparsity - sparsity) * 100 < points


def test_irregular_plans_depend_on_the_seed_and_on_nothing_else():
    menu, train = Candidates.up_to(40), texts(0, 10, 40)
    costs = Costs.of(menu, train, HEADS, WINDOWS)
    one, same, other = (irregular_plan(values(menu), menu, costs, 0.7, s) for s in (0, 0, 1))
    assert one == same
    assert one != other
    assert Plan.from_json(one.to_json()) == one
    with pytest.raises(
        PlanError, match=r"^this plan was made for a model of \d layers of .* heads"
    ):
        Plan.from_json(one.to_json()).resolve([*HEADS, 4])
    together = one.compile(TokenBatch.of_lengths(17, 9), HEADS).layers
    alone = one.compile(TokenBatch.of_lengths(9), HEADS).layers
    for whole, part in zip(together, alone, strict=True):
        assert torch.equal(whole.dense[1:, :, :9, :9], part.dense)


def test_windows_alone_leave_the_global_tokens_out():
    menu, train = Candidates.up_to(40), texts(0, 10, 40)
    costs = Costs.of(menu, train, HEADS, WINDOWS)
    choice = regular_choice(values(menu).exp().cumsum(-1), costs, 0.7)
    assert "global" in str(regular_plan(choice, menu, costs))
    assert "global" not in str(regular_plan(choice, menu, costs, windows_only=True))
    assert "global" not in str(irregular_plan(values(menu), menu, costs, 0.7, windows_only=True))


def test_degrees_in_the_terms_of_codes():
    tokens = [TokenBatch.of_lengths(5), TokenBatch.of_lengths(3, 2)]
    found = Diagnostics.of(Plan.of({0: "neighbor(1)", 1: "self()"}), tokens, [1, 2])
    # Layer 0: 5 tokens with degrees 2 3 3 3 2, then 2 3 2, then 2 2; layer 1: 1 in each of 2 heads.
    assert found.nodes == pytest.approx({1: 20 / 30, 2: 6 / 30, 3: 4 / 30})
    assert found.mean_degree == pytest.approx((20 + 12 + 12) / 30)
    assert found.edges == pytest.approx({1: 20 / 44, 2: 12 / 44, 3: 12 / 44})
    # 1 / mean degree = sum of edge shares / degree, the identity that joins the perspectives.
    assert sum(e / d for d, e in found.edges.items()) == pytest.approx(1 / found.mean_degree)
    assert found.reaches_cls == pytest.approx([(2 / 5 + 2 / 3 + 1) / 3] * 2)


def test_realised_counts_are_those_of_the_report():
    tokens = TokenBatch.of_lengths(9, 4, 12)
    plan = Plan.of({0: "random(2)", 1: {"0,2": "random(2)", "1": "neighbor(1)"}, 2: "global(cls)"})
    found = MeasuredSparsity.of(plan, [tokens], [3] * 4, [None, 3, None, 2])
    report = count_plan(plan, tokens, [3] * 4, [None, 3, None, 2])
    assert int(found.allowed.sum()) == report.allowed
    assert int(found.valid.sum()) == report.valid


def test_sparsity_by_length():
    tokens = [TokenBatch.of_lengths(10, 20), TokenBatch.of_lengths(20)]
    found = MeasuredSparsity.of(Plan.of("self()"), tokens, [1])
    assert found.by_length() == pytest.approx({"1-16": 0.9, "17-32": 0.95})
    assert found.by_length(edges=(5,)) == pytest.approx({"6-20": 1 - 50 / 900})
