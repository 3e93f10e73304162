"""Costs against masks that are counted pair by pair."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseattn import Plan, TokenBatch
from sparseattn.degrees.cost import Costs
from sparseattn.errors import PlanError
from tests.degrees.test_candidates import GLOBALS, OVER, candidates_of
from tests.patterns.batches import count_plan, samples

#: Two layers with local attention, and two without.
WINDOWS = (None, 4, 1, None)


def of_plan(plan, batches, heads, windows):
    """The share of all pairs that a plan allows."""
    reports = [count_plan(plan, tokens, heads, windows) for tokens in batches]
    return sum(r.allowed for r in reports) / sum(r.valid for r in reports)


def of_head(costs, batches, layer, combination):
    """The share of all pairs that one head allows with a combination."""
    pattern = Plan.of(costs.candidates.pattern(combination))
    counted = [
        pattern.compile(tokens, [1] * len(costs.heads), costs.windows).layers[layer].dense
        for tokens in batches
    ]
    valid = sum(int((tokens.lengths**2).sum()) for tokens in batches)
    return sum(int(dense.sum()) for dense in counted) / (valid * sum(costs.heads))


@pytest.mark.parametrize("over", OVER)
@settings(max_examples=5, deadline=None)
@given(data=st.data(), one=samples(longest=14), other=samples(longest=9))
def test_combinations_cost_the_pairs_of_their_compiled_plan(over, data, one, other):
    candidates = candidates_of(over, data.draw(st.sampled_from(GLOBALS)), data.draw(st.booleans()))
    batches, dense = [one.tokens, other.tokens], data.draw(st.sampled_from([(), (1,), (0, 3)]))
    costs = Costs.of(candidates, batches, [2] * 4, WINDOWS, dense)
    every = candidates.combinations
    some = data.draw(st.sets(st.integers(0, len(every) - 1), max_size=4))
    for number in {0, len(every) - 1, *some}:
        for index, layer in enumerate(costs.learned):
            found = float(costs.combinations[index, number])
            expected = of_head(costs, batches, layer, every[number].tolist())
            assert found == pytest.approx(expected, abs=1e-12)
    least, most = (
        Plan.of(dict.fromkeys(costs.learned, candidates.pattern(every[at].tolist())))
        for at in (0, -1)
    )
    assert costs.highest == pytest.approx(1 - of_plan(least, batches, [2] * 4, WINDOWS))
    assert costs.lowest == pytest.approx(1 - of_plan(most, batches, [2] * 4, WINDOWS))


def small_problem(granularity, dense=()):
    candidates = candidates_of("neighbor(degrees=[0, 1, 4]), random(degrees=[0, 3])")
    batches = [TokenBatch.of_lengths(9, 4), TokenBatch.of_lengths(14)]
    costs = Costs.of(candidates, batches, (2,) * 3, (None, 3, None), dense)
    draw = torch.Generator().manual_seed(len(granularity))
    shape = len(costs.learned), 1 if granularity == "layer" else 2
    logits = [torch.randn(*shape, n, generator=draw).double() for n in candidates.sizes]
    return costs, batches, [each.log_softmax(-1) for each in logits]


def tables(costs, batches, log_chances):
    """For each layer and head: the chance and the cost of each combination."""
    combinations = costs.candidates.combinations.tolist()
    groups = log_chances[0].shape[1]
    for index, layer in enumerate(costs.learned):
        prices = [of_head(costs, batches, layer, each) for each in combinations]
        for head in range(costs.heads[layer]):
            own = [each[index, min(head, groups - 1)].exp().tolist() for each in log_chances]
            chances = [
                math.prod(chances[entry] for chances, entry in zip(own, each, strict=True))
                for each in combinations
            ]
            yield chances, prices


@pytest.mark.parametrize("dense", [(), (1,)])
@pytest.mark.parametrize("granularity", ["head", "layer"])
def test_the_expected_density_is_the_mean_over_all_plans(granularity, dense):
    costs, batches, log_chances = small_problem(granularity, dense)
    expected = sum(
        chance * price
        for chances, prices in tables(costs, batches, log_chances)
        for chance, price in zip(chances, prices, strict=True)
    )
    for layer in dense:
        widest = Plan.of("full()")
        expected += sum(
            float(widest.compile(tokens, [1] * 3, costs.windows).layers[layer].dense.sum())
            for tokens in batches
        ) * (2 / costs.total)
    assert float(costs.density(log_chances)) == pytest.approx(expected, abs=1e-12)


def test_the_gradient_of_the_density():
    costs, _, log_chances = small_problem("layer")
    given = [each.clone().requires_grad_() for each in log_chances]
    assert torch.autograd.gradcheck(lambda *x: costs.density([y.log_softmax(-1) for y in x]), given)


def test_no_text_has_no_sparsity():
    with pytest.raises(PlanError, match="there is none"):
        Costs.of(candidates_of("neighbor"), [], [2], [None])


@pytest.mark.parametrize("off", [True, False])
def test_the_highest_sparsity_at_25_tokens(off):
    candidates = candidates_of("neighbor(degrees=[0, 1])", ("cls",), off)
    costs = Costs.of(candidates, [TokenBatch.of_lengths(25)], [12] * 6, [None] * 6)
    # Every token keeps itself; where heads must have CLS, its row and its column too.
    assert costs.highest == pytest.approx(1 - (25 if off else 49 + 24) / 625)
    costs.check(costs.highest)
    costs.check(0.883)
    more = "" if off else " and global tokens keep their rows and columns"
    highest = "0.960" if off else "0.883"
    message = f"every token keeps itself{more}, so the highest is {highest}$"
    with pytest.raises(PlanError, match=f"^sparsity 0.97 cannot be reached.*: {message}"):
        costs.check(0.97)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.2, "sparsity 1.2 is not a number from 0 to 1"),
        (-0.1, "sparsity -0.1 is not a number from 0 to 1"),
        (float("nan"), "sparsity nan is not a number from 0 to 1"),
        (True, "sparsity True is not a number from 0 to 1"),
        ("0.9", "sparsity '0.9' is not a number from 0 to 1"),
        (0.0, "sparsity 0 is below what the largest degrees give on these texts: the lowest is 0."),
    ],
)
def test_sparsities_that_make_no_sense(value, message):
    candidates = candidates_of("neighbor(degrees=[0, 1])")
    costs = Costs.of(candidates, [TokenBatch.of_lengths(25)], [2], [None])
    with pytest.raises(PlanError, match=message):
        costs.check(value)


def test_dense_layers_count():
    every, half = (
        Costs.of(
            candidates_of("neighbor"), [TokenBatch.of_lengths(25)], [2, 2], [None, None], dense
        )
        for dense in ([], [0])
    )
    assert half.highest == pytest.approx(every.highest / 2)
    assert half.learned == [1]
    assert half.budget(0.3) == pytest.approx(0.2)
    assert every.budget(0.3) == pytest.approx(0.7)
