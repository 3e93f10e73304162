"""Plans meet the budget that they were made for, and keep what the search was sure of."""

from __future__ import annotations

import time
from itertools import product
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseattn import Plan, TokenBatch
from sparseattn.counting import MeasuredSparsity
from sparseattn.degrees.candidates import Candidates
from sparseattn.degrees.cost import Costs
from sparseattn.degrees.discretize import MOST_COMBINATIONS, discretize, efficient
from sparseattn.degrees.knapsack import solve_knapsack
from sparseattn.degrees.ranking import parse_rankings
from tests.degrees.test_candidates import OVER, candidates_of
from tests.patterns.batches import Sample, count_plan, samples, text

FOUR = "neighbor, similarity, dependency, random"


def annotated(seed, low, high, count=48):
    """Texts with every annotation, in one batch."""
    random = Random(seed)
    made = tuple(text(random.randint(low, high), random) for _ in range(count))
    return [Sample(made, (0,) * count, max(map(len, made))).tokens]


def costs_of(over, batches, layers=6, heads=12, **options):
    longest = max(int(tokens.lengths.max()) for tokens in batches)
    candidates = Candidates.up_to(parse_rankings(over), longest, **options)
    return Costs.of(candidates, batches, [heads] * layers, [None] * layers)


def log_chances(costs, groups=None, seed=0, spread=2.0):
    draw = torch.Generator().manual_seed(seed)
    shape = len(costs.learned), groups or costs.heads[0]
    made = [torch.randn(*shape, n, generator=draw).double() for n in costs.candidates.sizes]
    return [(spread * logits).log_softmax(-1) for logits in made]


def values_of(costs, log_chances):
    """As `Learner.discretize` has them: the chance of each cell times its pairs."""
    return costs.allowed(log_chances) * costs.shares[:, None, :]


def sparsity_of(plan, batches, costs):
    return MeasuredSparsity.of(plan, batches, costs.heads, costs.windows).sparsity


@pytest.mark.parametrize("over", ["neighbor", "neighbor, similarity", FOUR, "elastic, random"])
@pytest.mark.parametrize("sparsity", [0.6, 0.93])
def test_plans_meet_the_sparsity_within_half_a_point_and_are_never_denser(over, sparsity):
    batches = annotated(0, 12, 40)
    costs = costs_of(over, batches)
    found = discretize(values_of(costs, log_chances(costs)), costs, sparsity)
    assert found.chosen.shape == (6, 12, len(costs.candidates.names))
    assert 0 <= sparsity_of(found.plan, batches, costs) - sparsity + 1e-9 < 0.005
    for layer, groups in enumerate(found.plan.resolve(costs.heads)):
        for heads, pattern in groups:
            for head in heads:
                expected = costs.candidates.pattern(found.chosen[layer, head].tolist())
                assert pattern == expected


def test_a_plan_holds_on_other_texts_and_may_be_one_a_layer():
    batches, others = annotated(0, 10, 40, 256), annotated(1, 10, 40, 256)
    costs = costs_of("neighbor, similarity", batches)
    plan = discretize(values_of(costs, log_chances(costs)), costs, 0.8).plan
    assert abs(sparsity_of(plan, others, costs) - 0.8) < 0.01
    shared = discretize(values_of(costs, log_chances(costs, 1)), costs, 0.8).plan
    assert all(len(groups) == 1 for groups in shared.resolve(costs.heads))
    assert 0 <= sparsity_of(shared, batches, costs) - 0.8 < 0.02


def test_dense_layers_and_local_layers_are_counted():
    batches = annotated(0, 12, 40)
    over = "neighbor(degrees=[0, 1, 2, 4, 8, 40]), similarity(degrees=[0, 1, 4])"
    candidates = candidates_of(over)
    costs = Costs.of(candidates, batches, [6] * 4, [None, 3, 3, None], dense=[1])
    found = discretize(values_of(costs, log_chances(costs)), costs, 0.7)
    assert 0 <= sparsity_of(found.plan, batches, costs) - 0.7 < 0.005
    assert [str(p) for _, p in found.plan.resolve([6] * 4)[1]] == ["full()"]


def test_elastic_windows_hold_the_sparsity_over_lengths():
    batches = [TokenBatch.of_lengths(*np.random.default_rng(0).integers(32, 128, 64).tolist())]
    spread = {}
    for over in ("neighbor", "elastic"):
        costs = costs_of(over, batches, globals=())
        plan = discretize(values_of(costs, log_chances(costs)), costs, 0.8).plan
        by_length = MeasuredSparsity.of(plan, batches, costs.heads).by_length()
        spread[over] = np.ptp(list(by_length.values()))
    assert spread["neighbor"] > 0.1
    assert spread["elastic"] < 0.03


@pytest.mark.parametrize("seed", range(4))
def test_no_plan_is_better(seed):
    """Every combination of every head of a small model."""
    batches = annotated(seed, 5, 9, 4)
    over = ["neighbor(degrees=[0, 1, 3]), similarity(degrees=[0, 2])", "random(degrees=[0, 1, 4])"]
    candidates = candidates_of(over[seed % 2])
    costs = Costs.of(candidates, batches, [2] * 2, [None, 2])
    values = values_of(costs, log_chances(costs, seed=seed))
    gains = (values @ costs.keeps.T).flatten(0, 1).numpy()
    prices = costs.combinations.repeat_interleave(2, dim=0).numpy()
    worth, cost = (
        sum(table[head].reshape([-1 if at == head else 1 for at in range(4)]) for head in range(4))
        for table in (gains, prices)
    )
    for share in (0.1, 0.3, 0.6, 0.9):
        sparsity = costs.highest + share * (costs.lowest - costs.highest)
        found = discretize(values, costs, sparsity)
        number = {tuple(each): at for at, each in enumerate(candidates.combinations.tolist())}
        picked = tuple(number[tuple(each)] for each in found.chosen.flatten(0, 1).tolist())
        budget = 1 - sparsity
        # The knapsack rounds a cost up to 1/20,000 of what the budget leaves.
        slack = 4 * (budget - cost.min()) / 20_000
        assert cost[picked] <= budget + 1e-9
        assert worth[picked] >= worth[cost <= budget - slack].max() - 1e-12
        assert sparsity_of(found.plan, batches, costs) == pytest.approx(1 - cost[picked])


def points_of(gains, prices, chosen):
    return sorted((float(prices[at]), float(gains[at])) for at in chosen)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.booleans())
def test_what_is_dominated_is_dropped_and_nothing_else(seed, count, ties):
    draw = np.random.default_rng(seed)
    prices = draw.integers(1, 12, count).astype(float) if ties else draw.random(count)
    gains = draw.integers(1, 12, count).astype(float) if ties else prices**0.7 + draw.random(count)
    every = sorted(set(zip(prices.tolist(), gains.tolist(), strict=True)))
    front = [
        (p, g)
        for p, g in every
        if not any((q, -h) != (p, -g) and q <= p and h >= g for q, h in every)
    ]
    found = efficient(gains, prices, most=count)
    assert points_of(gains, prices, found) == front
    assert points_of(gains, prices, found) == [(prices[at], gains[at]) for at in found]
    if len(front) <= MOST_COMBINATIONS:
        assert efficient(gains, prices).tolist() == found.tolist()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("most", [4, 24])
def test_of_many_the_hull_is_kept(seed, most):
    draw = np.random.default_rng(seed)
    prices, gains = np.sort(draw.random((2, 90)), axis=1)
    gains = np.sqrt(gains)
    shuffled = draw.permutation(90)
    prices, gains = prices[shuffled], gains[shuffled]
    found = efficient(gains, prices, most)
    points = points_of(gains, prices, range(90))
    corners = [
        points[i]
        for i in range(90)
        if all(
            (g - points[i][1]) * (points[i][0] - q) < (points[i][1] - h) * (p - points[i][0])
            for q, h in points[:i]
            for p, g in points[i + 1 :]
        )
    ]
    kept = points_of(gains, prices, found)
    assert len(kept) == len(set(kept)) == most
    assert kept == [(prices[at], gains[at]) for at in found], "in the order of their prices"
    assert {points[0], points[-1]} <= set(kept)
    if len(corners) <= most:
        assert set(corners) <= set(kept)
    else:
        assert set(kept) <= set(corners)


def test_heads_that_are_certain_of_everything_stay_whole():
    """A search that ended 0.09 points too dense once lost such a head to a knapsack of importance.

    Importance as a cumulative chance makes every head worth the same, so the widest is cheapest to
    cut.
    """
    batches = [TokenBatch.of_lengths(*range(40, 64))]
    costs = costs_of("neighbor", batches, off=False)
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 12, 8, generator=draw).double()
    logits -= 1.2 * torch.arange(8)
    for layer, head in ((2, 5), (3, 7)):
        logits[layer, head] = torch.tensor([0.0] * 7 + [9.5])
    chances = logits.log_softmax(-1)
    assert float(chances[2, 5, -1].exp()) > 0.999
    expected = float(costs.density([chances]))
    budget = expected - 0.0009
    found = discretize(values_of(costs, [chances]), costs, 1 - budget)
    assert found.chosen[2, 5, 0] == found.chosen[3, 7, 0] == 7
    assert 0 <= budget - (1 - sparsity_of(found.plan, batches, costs)) < 0.005
    importance = chances.exp().cumsum(-1).flatten(0, 1).numpy()
    prices = costs.combinations.repeat_interleave(12, dim=0).numpy()
    cut = solve_knapsack(importance, prices, budget).reshape(6, 12)
    assert min(cut[2, 5], cut[3, 7]) < 7


@pytest.mark.parametrize("over", OVER)
@settings(max_examples=5, deadline=None)
@given(data=st.data(), sample=samples(longest=14))
def test_shares_are_counted_from_masks(over, data, sample):
    candidates = candidates_of(over, off=data.draw(st.booleans()))
    tokens = sample.tokens
    costs = Costs.of(candidates, [tokens], [2] * 2, [None, 3])
    values = values_of(costs, log_chances(costs, seed=data.draw(st.integers(0, 99))))
    found = discretize(values, costs, (costs.highest + costs.lowest) / 2)
    names = [*(ranking.name for ranking in candidates.rankings), "global"]
    counts = dict.fromkeys([*candidates.names, "always"], 0)
    real = tokens.valid[:, :, None] & tokens.valid[:, None, :]
    own = torch.eye(tokens.length, dtype=torch.bool) & real
    globals_ = Plan.of("global(cls)").compile(tokens, [1, 1], costs.windows)
    always = [own if candidates.off else own | layer.dense[:, 0] for layer in globals_.layers]
    for layer, head in product(range(2), range(2)):
        taken = always[layer].clone()
        counts["always"] += int(taken.sum())
        combination = found.chosen[layer, head].tolist()
        for index, name in enumerate(names[: len(combination)]):
            if not combination[index]:
                continue
            alone = [0] * len(combination)
            alone[index] = combination[index]
            part = Candidates(candidates.rankings, off=True).pattern([*alone, 0][: len(names)])
            mask = Plan.of(part).compile(tokens, [1, 1], costs.windows).layers[layer].dense[:, 0]
            counts[name] += int((mask & ~taken).sum())
            taken |= mask
    total = sum(counts.values())
    assert found.shares == pytest.approx({name: n / total for name, n in counts.items()})
    assert sum(found.shares.values()) == pytest.approx(1)
    report = count_plan(found.plan, tokens, [2] * 2, [None, 3])
    assert total == report.allowed


def test_144_heads_over_four_rankings_take_less_than_two_seconds():
    batches = annotated(0, 60, 128, 8)
    costs = costs_of(FOUR, batches, layers=12)
    assert len(costs.candidates.combinations) == 9 * 5 * 4 * 5 * 2
    values = values_of(costs, log_chances(costs))
    begun = time.process_time()
    found = discretize(values, costs, 0.9)
    assert time.process_time() - begun < 2
    assert 0 <= sparsity_of(found.plan, batches, costs) - 0.9 < 0.005


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
