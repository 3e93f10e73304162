"""Costs in closed form against masks counted pair by pair."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseattn import Plan, TokenBatch
from sparseattn.counting import count_plan
from sparseattn.degrees.candidates import Candidates
from sparseattn.degrees.cost import Costs, allowed_pairs
from sparseattn.errors import PatternError, PlanError

CANDIDATES = [
    Candidates((0, 1, 2, 5, 64)),
    Candidates((0, 3), globals=()),
    Candidates((0, 1, 4), globals=("cls", "sep")),
    Candidates((0, 2, 7), globals=3),
    Candidates((0, 0.1, 0.35, 1.0), elastic=True),
    Candidates((0, 0.02, 0.03, 0.5), elastic=True, globals=("cls", "sep")),
]


@st.composite
def batches(draw):
    """Texts padded on either side, with separators anywhere."""
    lengths = draw(st.lists(st.integers(1, 23), min_size=1, max_size=4))
    longest = max(lengths) + draw(st.integers(0, 3))
    valid = torch.zeros(len(lengths), longest, dtype=torch.bool)
    for row, length in enumerate(lengths):
        start = draw(st.sampled_from([0, longest - length]))
        valid[row, start : start + length] = True
    seed = draw(st.integers(0, 1000))
    marks = torch.rand(valid.shape, generator=torch.Generator().manual_seed(seed)) < 0.15
    return TokenBatch(valid, separators=marks & valid)


def counted(candidates, tokens, entry, window=None):
    rule = Plan.of(candidates.pattern(entry)).compile(tokens, [1], [window]).layers[0]
    return rule.dense.sum(dim=(1, 2, 3))


@pytest.mark.parametrize("candidates", CANDIDATES)
@pytest.mark.parametrize("window", [None, 4])
@settings(max_examples=25, deadline=None)
@given(tokens=batches())
def test_allowed_pairs_are_those_of_the_compiled_plan(candidates, window, tokens):
    found = allowed_pairs(candidates, tokens, window)
    for entry in range(len(candidates)):
        assert torch.equal(found[:, entry], counted(candidates, tokens, entry, window))


@pytest.mark.parametrize("candidates", CANDIDATES)
@settings(max_examples=25, deadline=None)
@given(tokens=batches())
def test_padding_and_company_do_not_change_what_a_text_costs(candidates, tokens):
    together = allowed_pairs(candidates, tokens)
    for row in range(tokens.batch):
        valid = tokens.valid[row]
        alone = TokenBatch(
            torch.ones(1, int(valid.sum()), dtype=torch.bool),
            separators=tokens.separators[row, valid][None],
        )
        assert torch.equal(allowed_pairs(candidates, alone)[0], together[row])


def of_plan(plan, batches, heads, windows):
    allowed = valid = 0
    for tokens in batches:
        report = count_plan(plan, tokens, heads, windows)
        allowed, valid = allowed + report.allowed, valid + report.valid
    return allowed / valid


@pytest.mark.parametrize("dense", [(), (1,)])
@pytest.mark.parametrize("shared", [False, True])
def test_the_expected_density_is_the_mean_over_drawn_plans(dense, shared):
    candidates, heads, windows = Candidates((0, 2, 5)), (2, 2, 2), (None, 6, None)
    batches = [TokenBatch.of_lengths(9, 4), TokenBatch.of_lengths(14)]
    costs = Costs.of(candidates, batches, heads, windows, dense)
    layers, smallest = costs.learned, candidates.pattern(0)
    logits = torch.randn(len(layers), 1 if shared else 2, 3, dtype=torch.float64)
    chances = logits.softmax(-1)
    expected = 0.0
    fixed = of_plan(Plan.of(dict.fromkeys(layers, smallest)), batches, heads, windows)
    for index, layer in enumerate(layers):
        for head in range(2):
            for entry in range(3):
                where = {other: smallest for other in layers if other != layer}
                plan = Plan.of({**where, layer: {1 - head: smallest}})
                one = Plan.of(candidates.pattern(entry), layer, head)
                plan = Plan((*plan.entries, *one.entries))
                extra = of_plan(plan, batches, heads, windows) - fixed
                expected += extra * float(chances[index, 0 if shared else head, entry])
    assert float(costs.density(chances)) == pytest.approx(fixed + expected, abs=1e-12)


def test_the_density_has_the_gradient_of_a_linear_function():
    costs = Costs.of(Candidates((0, 1, 8)), [TokenBatch.of_lengths(12, 7)], [3, 3], [None, None])
    chances = torch.rand(2, 3, 3, dtype=torch.float64, requires_grad=True)
    costs.density(chances).backward()
    assert torch.allclose(chances.grad, costs.table[:, None, :].expand(-1, 3, -1))


def test_the_highest_sparsity_at_25_tokens_with_cls():
    costs = Costs.of(Candidates((0, 1)), [TokenBatch.of_lengths(25)], [12] * 6, [None] * 6)
    # The row and the column of CLS, and 24 tokens that keep themselves.
    assert costs.highest == pytest.approx(1 - (49 + 24) / 625)
    costs.check(costs.highest)
    costs.check(0.883)
    with pytest.raises(PlanError, match=r"sparsity 0.9 cannot be reached.*the highest is 0.883$"):
        costs.check(0.9)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.2, "sparsity 1.2 is not a number from 0 to 1"),
        (-0.1, "sparsity -0.1 is not a number from 0 to 1"),
        (float("nan"), "sparsity nan is not a number from 0 to 1"),
        (True, "sparsity True is not a number from 0 to 1"),
        ("0.9", "sparsity '0.9' is not a number from 0 to 1"),
        (0.0, "sparsity 0 is below what the largest candidate radius gives on these texts"),
    ],
)
def test_sparsities_that_make_no_sense(value, message):
    costs = Costs.of(Candidates((0, 1)), [TokenBatch.of_lengths(25)], [2], [None])
    with pytest.raises(PlanError, match=message):
        costs.check(value)


def test_dense_layers_count():
    batches = [TokenBatch.of_lengths(25)]
    every, half = (
        Costs.of(Candidates((0, 1)), batches, [2, 2], [None, None], dense) for dense in ([], [0])
    )
    assert half.highest == pytest.approx(every.highest / 2)
    assert half.learned == [1]
    with pytest.raises(PlanError, match="there is none"):
        Costs.of(Candidates((0, 1)), [], [2], [None])


@pytest.mark.parametrize(
    ("entries", "options", "message"),
    [
        ((1, 2), {}, r"candidates \[1, 2\]: expected ascending whole numbers of tokens"),
        ((0,), {}, "at least two"),
        ((0, 2, 2), {}, "ascending"),
        ((0, 1.5), {}, "whole numbers"),
        ((0, True), {}, "whole numbers"),
        ((0, 1.5), {"elastic": True}, "shares of the length from 0 to 1"),
        (tuple(range(25)), {}, "25 candidates: the most is 24"),
        ((0, 1), {"globals": ("bos",)}, "cls, sep"),
    ],
)
def test_wrong_candidates(entries, options, message):
    with pytest.raises(PatternError if "globals" in options else PlanError, match=message):
        Candidates(entries, **options)


@pytest.mark.parametrize(
    ("longest", "options", "entries"),
    [
        (64, {}, (0, 1, 2, 4, 8, 16, 32, 64)),
        (65, {}, (0, 1, 2, 4, 8, 16, 32, 64)),
        (66, {}, (0, 1, 2, 4, 8, 16, 32, 64, 128)),
        (1, {}, (0, 1)),
        (512, {"max_radius": 20}, (0, 1, 2, 4, 8, 16, 20)),
        (3, {"elastic": True}, (0, 0.3333, 0.6667)),
    ],
)
def test_candidates_reach_across_the_longest_text(longest, options, entries):
    assert Candidates.up_to(longest, **options).entries == entries
    assert Candidates.up_to(64, elastic=True).entries[-1] == 1.0
