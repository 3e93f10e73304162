"""Random keys: how many, how evenly, and what they depend on."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

import sparseattn as sa
from sparseattn.patterns._sampling import draw
from tests.patterns.batches import FIXED


def keys(seed: int, layer: int, n: int, degree: int) -> torch.Tensor:
    return draw(seed, layer, (degree,) * n)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 129])
@pytest.mark.parametrize("degree", [1, 2, 5, 31, 32, 63, 64, 200])
def test_each_query_gets_exactly_its_degree_of_distinct_others(n, degree):
    table = keys(3, 1, n, degree)
    wanted = min(degree, n - 1)
    assert table.shape == (n, wanted)
    for query, row in enumerate(table.tolist()):
        assert row == sorted(set(row))
        assert query not in row
        assert all(0 <= key < n for key in row)


def test_degrees_may_differ_from_query_to_query():
    degrees = (0, 9, 5, 1, 4, 0, 12, 3, 6, 2)
    table = draw(0, 0, degrees)
    assert (table >= 0).sum(dim=1).tolist() == [min(degree, 9) for degree in degrees]


def test_the_draw_depends_on_seed_layer_and_length():
    first = keys(0, 0, 50, 4)
    draw.cache_clear()
    assert torch.equal(first, keys(0, 0, 50, 4))
    assert not torch.equal(first, keys(1, 0, 50, 4))
    assert not torch.equal(first, keys(0, 1, 50, 4))
    assert not torch.equal(first, keys(0, 0, 51, 4)[:50])


def test_the_draw_is_the_same_on_every_machine():
    """Fixed values: a study repeated elsewhere, or later, must get the same graph."""
    few = [[2, 3], [0, 3], [0, 3], [2, 4], [1, 3], [0, 1]]
    most = [[1, 2, 3, 4], [2, 3, 4, 5], [0, 1, 3, 5], [0, 2, 4, 5], [1, 2, 3, 5], [0, 2, 3, 4]]
    assert keys(0, 0, 6, 2).tolist() == few
    assert keys(7, 3, 6, 4).tolist() == most


@pytest.mark.parametrize("degree", [2, 5])
def test_all_sets_of_keys_are_equally_likely(degree):
    """Chi-square over the sets of query 0; few keys and most keys are drawn differently."""
    n, times = 7, 3000
    sets = [frozenset(keys(seed, 0, n, degree)[0].tolist()) for seed in range(times)]
    values, counts = np.unique([sorted(s) for s in sets], axis=0, return_counts=True)
    choices = {2: 15, 5: 6}[degree]
    assert len(values) == choices
    statistic = ((counts - times / choices) ** 2 / (times / choices)).sum()
    freedom = choices - 1
    assert statistic < freedom + 4 * (2 * freedom) ** 0.5  # four standard deviations


def test_all_keys_are_equally_likely_in_a_long_text():
    n, degree = 2000, 8
    counts = keys(1, 0, n, degree).flatten().bincount(minlength=n).double()
    # Each key is drawn by n - 1 queries with chance degree / (n - 1): mean 8, variance about 8.
    assert counts.mean() == degree
    assert 0.85 < counts.var() / degree < 1.15
    lag = torch.corrcoef(torch.stack([counts[:-1], counts[1:]]))[0, 1]
    assert abs(lag) < 0.1


def test_layers_are_independent():
    n, degree = 400, 40
    one, other = (sa.random(degree).rule(sa.TokenBatch.of_lengths(n), layer) for layer in (0, 1))
    shared = (one.dense(n) & other.dense(n)).sum().item() / (n * degree)
    assert abs(shared - degree / (n - 1)) < 0.02


def test_memory_grows_with_the_keys_not_with_the_square():
    n, degree = 30_000, 4
    tracemalloc.start()
    table = keys(0, 0, n, degree)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert table.shape == (n, degree)
    assert peak < 20 * 8 * n * degree  # a boolean n x n alone would be 47 times that


@pytest.mark.parametrize(
    "inner",
    [
        "dependency()",
        "part_of_speech([noun, verb, det])",
        "similarity(k=3)",
        "strided(3) - neighbor(1)",
        "random(4, seed=2)",
    ],
)
@pytest.mark.parametrize("keep", [None, "global(cls, sep)", "neighbor(1) | global(first=2)"])
def test_matched_random_has_the_degrees_of_its_pattern_and_what_is_kept(inner, keep):
    specs = f"matched_random({inner}, keep={keep})", f"{inner} | {keep}", keep
    control, whole, kept = (
        sa.Plan.of(spec).compile(FIXED.tokens, (2,) * 3)
        for spec in (specs if keep else (f"matched_random({inner})", inner, "self()"))
    )
    for ours, theirs, stays in zip(control.layers, whole.layers, kept.layers, strict=True):
        assert torch.equal(ours.dense.sum(dim=-1), theirs.dense.sum(dim=-1))
        assert (ours.dense | ~stays.dense).all()
        assert not torch.equal(ours.dense, theirs.dense)
