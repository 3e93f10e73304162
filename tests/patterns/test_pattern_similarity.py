"""The nearest tokens against a sort of every other token, text by text."""

from __future__ import annotations

import pytest
import torch

from sparseattn.patterns import _nearest
from sparseattn.patterns._nearest import nearest_by_piece
from sparseattn.patterns.similarity import nearest


def by_hand(embedding, ids, lexical, k):
    """A loop: a token's others by their rounded cosine, then by their place."""
    unit = torch.nn.functional.normalize(embedding.double(), dim=-1).tolist()
    rows = []
    for pieces, real in zip(ids.tolist(), lexical.tolist(), strict=True):
        rows.append([])
        for q, asks in enumerate(real):
            others = [j for j, found in enumerate(real) if found and asks and j != q]

            def far(j, q=q, pieces=pieces):
                pairs = zip(unit[pieces[q]], unit[pieces[j]], strict=True)
                return -round(sum(x * y for x, y in pairs) * 2**24), j

            width = min(k, len(pieces))
            rows[-1].append((sorted(others, key=far) + [-1] * width)[:width])
    return torch.tensor(rows)


@pytest.mark.parametrize("k", [1, 5, 50])
@pytest.mark.parametrize("vocabulary", [1, 3, 80])
@pytest.mark.parametrize("ties", [False, True])
def test_nearest_equals_a_loop(vocabulary, k, ties, monkeypatch):
    """Few word pieces are repeated often; small whole numbers have equal cosines."""
    monkeypatch.setattr(_nearest, "PIECES", 5)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        embedding = torch.randn(vocabulary, 4, generator=generator)
        embedding = embedding.round() if ties else embedding
        ids = torch.randint(vocabulary, (3, 23), generator=generator)
        lexical = torch.rand(ids.shape, generator=generator) < (1.0, 0.7, 0.1)[seed % 3]
        expected = by_hand(embedding, ids, lexical, k)
        assert torch.equal(nearest_by_piece(embedding, ids, lexical, k), expected)


def test_a_batch_without_words_has_no_nearest():
    ids = torch.zeros(2, 4, dtype=torch.long)
    assert (nearest_by_piece(torch.ones(1, 2), ids, ids > 0, 2) == -1).all()
    assert nearest_by_piece(torch.ones(1, 2), ids[:, :0], ids[:, :0] > 0, 2).shape == (2, 0, 0)


def test_keys_of_other_sentences_are_told_apart_by_a_thousandth():
    angles = torch.tensor([0.0, 0.1, 0.2, 0.11, 0.09]).double()
    vectors = torch.stack([angles.cos(), angles.sin()], dim=-1)[None]
    sentences = torch.tensor([[0, 1, 1, 1, 1]])
    found = nearest(vectors, sentences >= 0, torch.tensor([0]), 5, sentences)
    assert found.tolist() == [[[4, 1, 3, 2, -1]]]
