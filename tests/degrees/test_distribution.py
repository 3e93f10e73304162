"""The soft mask: its definition, its gradient, and its limits."""

from __future__ import annotations

import pytest
import torch

import sparseattn as sa
from sparseattn import Plan, TokenBatch
from sparseattn.degrees.candidates import Candidates
from sparseattn.degrees.distribution import Degrees, soft_mask
from sparseattn.degrees.search import searching
from sparseattn.errors import PlanError, UnsupportedModelError
from tests.models.families import batch, build


@pytest.mark.parametrize(
    "candidates",
    [
        Candidates((0, 2, 5)),
        Candidates((0, 2, 5), globals=()),
        Candidates((0, 2, 5), globals=("cls", "sep")),
        Candidates((0, 0.2, 0.25, 0.8), elastic=True),
    ],
)
def test_the_soft_mask_is_the_definition(candidates):
    marks = torch.zeros(3, 9, dtype=torch.bool)
    marks[0, 4] = marks[1, 2] = True
    valid = torch.arange(9) < torch.tensor([[9], [4], [6]])
    valid[2] = valid[2].flip(0)
    tokens = TokenBatch(valid, separators=marks)
    chances = torch.rand(2, len(candidates), dtype=torch.float64).softmax(-1)
    found = soft_mask(chances.log(), candidates, tokens).expand(3, 2, 9, 9)
    radii, chosen = candidates.radii(tokens).expand(3, -1), candidates.global_mask(tokens)
    for b in range(3):
        for q in range(9):
            for k in range(9):
                if abs(q - k) > radii[b, -1]:
                    continue
                inside = radii[b] >= abs(q - k)
                survival = torch.where(inside, chances, 0.0).sum(-1)
                expected = survival.log() * (0 if chosen[b, q] or chosen[b, k] else 1)
                assert torch.allclose(found[b, :, q, k], expected, atol=1e-12)


@pytest.mark.parametrize(
    "candidates", [Candidates((0, 1, 3, 6)), Candidates((0, 0.3, 0.7), elastic=True)]
)
@pytest.mark.parametrize("granularity", ["head", "layer"])
def test_gradients_of_the_distribution(candidates, granularity):
    torch.manual_seed(0)
    degrees = Degrees(candidates, [2, 2], [None, None], granularity=granularity).double()
    degrees.temperature = 0.7
    tokens = TokenBatch.of_lengths(6, 4)
    q, k, v = torch.randn(3, 2, 2, 6, 3, dtype=torch.float64)

    def attend(theta):
        chances = (theta / degrees.temperature).log_softmax(-1)
        plan = degrees.widest.compile(tokens, [2, 2])
        out = []
        for layer in range(2):
            scores = q @ k.transpose(-1, -2) + soft_mask(chances[layer], candidates, tokens)
            weights = scores.masked_fill(~plan.layers[layer].finite, -torch.inf).softmax(-1)
            out.append(weights @ v)
        return torch.stack(out)

    theta = torch.randn_like(degrees.theta, requires_grad=True)
    assert torch.autograd.gradcheck(attend, (theta,))


def test_every_radius_gets_gradient_at_once():
    degrees = Degrees(Candidates((0, 1, 2, 4, 8)), [2], [None])
    biases = degrees.soft_plan(TokenBatch.of_lengths(12)).biases
    torch.manual_seed(0)
    (torch.rand(12, 12) * biases[0]).sum().backward()
    assert (degrees.theta.grad != 0).all()


def test_extreme_distributions_stay_finite():
    degrees = Degrees(Candidates((0, 1, 4)), [1], [None], ())
    with torch.no_grad():
        degrees.theta[:] = torch.tensor([500.0, 0.0, -500.0])
    degrees.temperature = 0.1
    bias = degrees.soft_plan(TokenBatch.of_lengths(7)).biases[0]
    assert torch.isfinite(bias).all()
    bias.exp().sum().backward()
    assert torch.isfinite(degrees.theta.grad).all()


@pytest.mark.parametrize("backend", ["masked", "reference"])
@pytest.mark.parametrize("family", ["bert", "albert", "modernbert", "t5-encoder"])
def test_a_certain_distribution_is_the_plan(family, backend):
    model, inputs = build(family), batch((23, 7))
    candidates = Candidates((0, 1, 3, 32))
    sa.sparsify(model, "full()", backend=backend)
    state = sa.models.state.attached_state(model)
    degrees = Degrees(candidates, state.heads, state.windows)
    chosen = torch.randint(
        0, 4, degrees.theta.shape[:2], generator=torch.Generator().manual_seed(3)
    )
    with torch.no_grad():
        degrees.theta.scatter_(2, chosen[..., None], 80.0)
    entries = {
        layer: {head: candidates.pattern(int(entry)) for head, entry in enumerate(row)}
        for layer, row in enumerate(chosen)
    }
    with torch.no_grad():
        with searching(model, degrees):
            expected = model(**inputs)[0]
        with sa.sparsified(model, Plan.of(entries)):
            under_plan = model(**inputs)[0]
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(expected[real], under_plan[real], atol=1e-5, rtol=1e-4)


def test_the_model_is_as_it_was_after_searching():
    model, inputs = build("bert"), batch((9, 4))
    stock = model(**inputs)[0]
    names = [name for name, _ in model.named_parameters()]
    with searching(model, Degrees(Candidates((0, 1)), [4] * 3, [None] * 3)):
        assert not torch.equal(model(**inputs)[0], stock)
        assert "sparseattn_degrees.theta" in dict(model.named_parameters())
    assert torch.equal(model(**inputs)[0], stock)
    assert [name for name, _ in model.named_parameters()] == names


def test_families_that_take_only_a_boolean_mask_are_refused():
    degrees = Degrees(Candidates((0, 1)), [4] * 3, [None] * 3)
    with (
        pytest.raises(UnsupportedModelError, match=r"'deberta' takes only a boolean mask"),
        searching(build("deberta"), degrees),
    ):
        pass


def test_layers_need_equally_many_heads():
    with pytest.raises(PlanError, match=r"equally many heads; got \[2, 4\]"):
        Degrees(Candidates((0, 1)), [2, 4], [None, None])
    with pytest.raises(PlanError, match="equally many heads"):
        Degrees(Candidates((0, 1)), [2], [None], dense=[0])
