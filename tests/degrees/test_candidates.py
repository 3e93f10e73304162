"""Cells against compiled plans: what a combination keeps is what its pattern allows."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseattn import Plan
from sparseattn.degrees.candidates import Candidates
from sparseattn.degrees.ranking import parse_rankings
from sparseattn.degrees.rankings.distance import NeighborRanking
from tests.patterns.batches import samples

ALONE = {
    "neighbor": "neighbor(degrees=[0, 1, 2, 5])",
    "elastic": "elastic(degrees=[0, 0.1, 0.25, 0.5, 1])",
    "similarity": "similarity(degrees=[0, 1, 3])",
    "other": "other_sentence_similarity(degrees=[0, 1, 4])",
    "dependency": "dependency(degrees=[0, 1, 2, 4])",
    "random": "random(degrees=[0, 2, 5])",
}
TOGETHER = {
    "two": f"{ALONE['neighbor']}, {ALONE['similarity']}",
    "three": f"{ALONE['random']}, {ALONE['elastic']}, {ALONE['dependency']}",
    "four": ",".join(ALONE[name] for name in ("neighbor", "similarity", "dependency", "random")),
}
OVER = ALONE | TOGETHER
GLOBALS = [(), ("cls",), ("cls", "sep"), 2]


def candidates_of(over: str, globals: object = ("cls",), off: bool = True) -> Candidates:
    return Candidates(parse_rankings(OVER.get(over, over)), globals, off)


@pytest.mark.parametrize("over", OVER)
@settings(max_examples=8, deadline=None)
@given(data=st.data(), sample=samples(longest=16))
def test_a_combination_keeps_the_pairs_of_its_pattern(over, data, sample):
    candidates = candidates_of(over, data.draw(st.sampled_from(GLOBALS)), data.draw(st.booleans()))
    tokens, every = sample.tokens, candidates.combinations
    real = tokens.valid[:, :, None] & tokens.valid[:, None, :]
    cells = [candidates.cells(tokens, layer) for layer in (0, 1)]
    assert candidates.needed.varies_by_layer == (over in ("random", "three", "four"))
    some = data.draw(st.sets(st.integers(0, len(every) - 1), max_size=12))
    for number in {0, len(every) - 1, *some}:
        plan = Plan.of(candidates.pattern(every[number].tolist())).compile(tokens, [1, 1])
        for found, layer in zip(cells, plan.layers, strict=True):
            assert ((found >= 0) & (found < candidates.cell_count)).all()
            keeps = candidates.keeps(candidates.decode(found.flatten()))[number]
            assert torch.equal(keeps.view_as(real) & real, layer.dense[:, 0])


@pytest.mark.parametrize("off", [True, False])
def test_the_least_and_the_most_that_a_head_may_have(off):
    candidates = candidates_of("two", ("cls",), off)
    least, most = (candidates.pattern(candidates.combinations[at].tolist()) for at in (0, -1))
    assert str(least) == ("self()" if off else "global(cls)")
    assert str(most) == "neighbor(radius=5) | similarity(k=3) | global(cls)"
    assert candidates.names == ("neighbor", "similarity", *["global"] * off)
    assert candidates.needed == most
    assert str(candidates_of("two", (), off).pattern([0, 0])) == "self()"
    assert candidates_of("two", (), off).names == ("neighbor", "similarity")


def test_a_ranking_keeps_its_arguments_where_its_degrees_are_chosen():
    @dataclass(frozen=True)
    class Every(NeighborRanking):
        step: int = 2

    (kept,) = Candidates.up_to([Every(step=5)], 9).rankings
    assert kept == Every((0, 1, 2, 4, 8), step=5)
