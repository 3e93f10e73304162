"""Patterns of which a smaller degree keeps a part of what a larger one keeps."""

from itertools import pairwise

import pytest
from hypothesis import given, settings

import sparseattn as sa
from tests.patterns.batches import samples


@pytest.mark.parametrize(
    "spec",
    [
        "random(degree={}, drawn=16)",
        "random(degree={}, drawn=16, seed=3, per_layer=false)",
        "dependency(hops={})",
        "similarity(k={})",
    ],
)
@settings(max_examples=8, deadline=None)
@given(sample=samples(longest=24))
def test_a_degree_is_within_the_next(spec, sample):
    tokens = sample.tokens
    degrees = [sa.Plan.of(spec.format(d)).compile(tokens, [1, 1]) for d in range(1, 17)]
    for less, more in pairwise(degrees):
        for one, other in zip(less.layers, more.layers, strict=True):
            assert not (one.dense & ~other.dense).any()
