"""What can reach what, against a double loop."""

import numpy as np
import pytest
import torch

import sparseattn as sa
from sparseattn.verifying.reach import Reach


def reached(masks, start):
    """Tokens reached from one, layer by layer. Shape of each mask: [heads, query, key]."""
    now = {start}
    for mask in masks:
        heads, length, _ = mask.shape
        now = now | {
            query
            for query in range(length)
            for key in now
            if any(mask[head, query, key] for head in range(heads))
        }
    return now


@pytest.mark.parametrize(
    "plan",
    [
        "neighbor(radius=2)",
        "dilated(2, 3)",
        {":": "neighbor(1)", "1": {"0": "global(cls)", "2,3": "strided(5)"}},
        {"0": "neighbor(1) | global(first=2)", "1:": "neighbor(radius=3)"},
        "block(4)",
    ],
)
def test_reach_is_a_boolean_product_of_the_layers(plan):
    length, heads = 23, [4, 4, 4]
    compiled = sa.Plan.of(plan).compile(sa.TokenBatch.of_lengths(length), heads)
    reach = Reach.of(compiled)
    masks = [rule.dense[0].expand(4, -1, -1).numpy() for rule in compiled.layers]
    for token in (0, 7, 22):
        effect = reach.changed_by_tokens([token])[:, 0]
        assert {int(at) for at in effect.nonzero()} == reached(masks, token)
        sources = {int(at) for at in reach.sources_of(token).nonzero()}
        assert sources == {at for at in range(length) if token in reached(masks, at)}


def test_a_token_that_changes_the_mask_reaches_whose_keys_it_changes():
    """The first token's word decides about the second query's keys; no attention joins them."""
    before = torch.eye(4, dtype=torch.float64)
    after = before.clone()
    after[1] = torch.tensor([0, 0.5, 0, 0.5])
    joined = Reach((before,)).joined(Reach((after,)), token=0)
    assert joined.changed_by_tokens([0])[:, 0].nonzero().flatten().tolist() == [0, 1]
    assert joined.changed_by_tokens([3])[:, 0].nonzero().flatten().tolist() == [1, 3]
    assert np.allclose(before, torch.eye(4))
