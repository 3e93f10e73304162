"""The soft mask: its definition, its gradient, and its limits."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from itertools import product

import pytest
import torch

import sparseattn as sa
from sparseattn import Plan
from sparseattn.degrees.distribution import Degrees, log_allowed, log_missed
from sparseattn.degrees.search import searching
from sparseattn.errors import PlanError
from sparseattn.models.state import attached_state
from tests.degrees.test_candidates import OVER, candidates_of
from tests.models.families import batch, build
from tests.patterns.batches import FIXED

SIZES = [(3,), (2, 2), (4, 3, 2), (3, 2, 4, 2)]
EXTREMES = {
    "zeros": lambda size: [0.0] * size,
    "first": lambda size: [500.0, *[-500.0] * (size - 1)],
    "last": lambda size: [*[-500.0] * (size - 1), 500.0],
    "falling": lambda size: [500.0 - 1000.0 * at / (size - 1) for at in range(size)],
}


def survival(logits: list[float]) -> list[Decimal]:
    weights = [Decimal(logit).exp() for logit in logits]
    return [sum(weights[level:], Decimal(0)) / sum(weights) for level in range(len(weights) + 1)]


def exact_log_allowed(first: list[float], second: list[float]) -> list[float]:
    """The chance that either keeps a pair, a + b - ab, in 60 digits of any exponent."""
    with localcontext(prec=60):
        unions = [a + b - a * b for a, b in product(survival(first), survival(second))]
        return [*(float(union.ln()) if union else -math.inf for union in unions), 0.0]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_chance_of_a_cell_is_one_minus_the_product(sizes, seed):
    """A double loop in float64."""
    draw = torch.Generator().manual_seed(seed)
    logits = [3 * torch.randn(2, size, generator=draw, dtype=torch.float64) for size in sizes]
    found = log_allowed([each.log_softmax(-1) for each in logits])
    for head in range(2):
        chances = [each[head].softmax(-1).tolist() for each in logits]
        expected = []
        for levels in product(*(range(size + 1) for size in sizes)):
            missed = 1.0
            for own, level in zip(chances, levels, strict=True):
                missed *= 1 - sum(own[level:])
            expected.append(1 - missed)
        assert found[head].exp().tolist() == pytest.approx([*expected, 1.0], abs=1e-12)
    for each in logits:
        missed = log_missed(each.log_softmax(-1))
        below = [each.softmax(-1)[:, :level].sum(-1) for level in range(each.shape[1] + 1)]
        torch.testing.assert_close(missed.exp(), torch.stack(below, -1))


@pytest.mark.parametrize(("dtype", "temperature"), [(torch.float32, 0.1), (torch.float64, 1.0)])
@pytest.mark.parametrize("kinds", [*product(EXTREMES, repeat=2)], ids="-".join)
def test_extreme_distributions_are_exact_and_finite(kinds, temperature, dtype):
    given = [EXTREMES[kind](size) for kind, size in zip(kinds, (3, 2), strict=True)]
    logits = [torch.tensor(each, dtype=dtype, requires_grad=True) for each in given]
    found = log_allowed([(each / temperature).log_softmax(-1) for each in logits])
    exact = exact_log_allowed(*([x / temperature for x in each] for each in given))
    assert torch.isfinite(found).all()
    for value, true in zip(found.tolist(), exact, strict=True):
        if true == -math.inf:
            assert value < -1e29
        else:
            assert value == pytest.approx(true, rel=1e-6, abs=1e-6)
    torch.randn(len(found), dtype=dtype).mul(found.clamp(min=-1e5)).sum().backward()
    for each in logits:
        assert torch.isfinite(each.grad).all()
    (gradient,) = torch.autograd.grad(
        log_allowed([(logits[0] / temperature).log_softmax(-1)]).exp().sum(), logits[0]
    )
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("over", "granularity"), [("elastic", "head"), ("two", "head"), ("three", "layer")]
)
def test_gradients_of_attention_under_the_soft_mask(over, granularity):
    torch.manual_seed(0)
    degrees = Degrees(candidates_of(over), [2, 2], [None, None], (), granularity).double()
    degrees.temperature = 0.7
    tokens = FIXED.alone(1).tokens
    q, k, v = torch.randn(3, 2, tokens.length, 3, dtype=torch.float64)
    theta = torch.randn_like(degrees.theta, requires_grad=True)
    del degrees.theta

    def attend(theta):
        degrees.theta = theta
        scores = q @ k.transpose(-1, -2)
        biases = degrees.soft_plan(tokens).biases
        return torch.stack([(scores + bias[0]).softmax(-1) @ v for bias in biases])

    assert torch.autograd.gradcheck(attend, (theta,))


@pytest.mark.parametrize("over", OVER)
def test_every_candidate_of_every_ranking_gets_gradient_at_once(over):
    degrees = Degrees(candidates_of(over), [2], [None])
    (bias,) = degrees.soft_plan(FIXED.tokens).biases
    torch.manual_seed(0)
    (torch.rand(bias.shape) * bias.exp()).sum().backward()
    assert (degrees.theta.grad != 0).all()


def test_heads_begin_with_the_widest_of_the_first_ranking_and_the_global_tokens():
    degrees = Degrees(candidates_of("two"), [2], [None])
    chances = degrees.chances()
    assert list(chances) == ["neighbor", "similarity", "global"]
    assert (chances["neighbor"][..., -1] > 0.9).all()
    assert (chances["global"][..., -1] > 0.9).all()
    torch.testing.assert_close(chances["similarity"], torch.full((1, 2, 3), 1 / 3))


FAR = {
    "bert": "neighbor(degrees=[0, 1, 3, 32]), similarity(degrees=[0, 1, 4]), random(degrees=[0,3])",
    "albert": "similarity(degrees=[0, 1, 4]), neighbor(degrees=[0, 1, 3, 32])",
    "modernbert": "neighbor(degrees=[0, 1, 3, 32]), similarity(degrees=[0, 1, 4])",
    "t5-encoder": "elastic(degrees=[0, 0.1, 1]), random(degrees=[0, 2, 6])",
}


@pytest.mark.parametrize("family", FAR)
def test_a_certain_distribution_is_the_plan(family):
    model, inputs = build(family), batch((23, 7))
    inputs["special_tokens_mask"] = (torch.arange(23) == 0).long().expand(2, 23)
    candidates = candidates_of(FAR[family])
    sa.sparsify(model, "full()", backend="masked")
    state = attached_state(model)
    assert any(state.windows) == (family == "modernbert")
    # The first layer whose degrees are learned need not be the first layer.
    degrees = Degrees(candidates, state.heads, state.windows, [0] if family == "bert" else [])
    draw = torch.Generator().manual_seed(3)
    numbers = torch.randint(len(candidates.combinations), degrees.theta.shape[:2], generator=draw)
    chosen, start = candidates.combinations[numbers], 0
    with torch.no_grad():
        for choice, size in enumerate(candidates.sizes):
            degrees.theta[..., start : start + size].zero_()
            degrees.theta.scatter_(2, start + chosen[..., choice, None], 80.0)
            start += size
    entries = {
        layer: {head: candidates.pattern(one) for head, one in enumerate(row)}
        for layer, row in zip(degrees.layers, chosen.tolist(), strict=True)
    }
    with torch.no_grad():
        with searching(model, degrees):
            expected = model(**inputs)[0]
        with sa.sparsified(model, Plan.of(entries), backend="masked"):
            under_plan = model(**inputs)[0]
        with sa.sparsified(model, "full()"):
            dense = model(**inputs)[0]
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(expected[real], under_plan[real], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(expected[real], dense[real], atol=1e-3)


def test_the_model_is_as_it_was_after_searching():
    model, inputs = build("bert"), batch((9, 4))
    stock = model(**inputs)[0]
    names = [name for name, _ in model.named_parameters()]
    with searching(model, Degrees(candidates_of("neighbor"), [4] * 3, [None] * 3)):
        assert not torch.equal(model(**inputs)[0], stock)
        assert "sparseattn_degrees.theta" in dict(model.named_parameters())
    assert torch.equal(model(**inputs)[0], stock)
    assert [name for name, _ in model.named_parameters()] == names


def test_layers_need_equally_many_heads():
    with pytest.raises(PlanError, match=r"equally many heads; got \[2, 4\]"):
        Degrees(candidates_of("neighbor"), [2, 4], [None, None])
    with pytest.raises(PlanError, match="equally many heads"):
        Degrees(candidates_of("neighbor"), [2], [None], dense=[0])
