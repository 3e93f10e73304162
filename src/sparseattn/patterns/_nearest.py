"""The nearest tokens of each token, found by word piece."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

#: Word pieces compared at a time: bounds the memory to PIECES x pieces cosines a text.
PIECES = 256


def nearest_by_piece(embedding: Tensor, ids: Tensor, lexical: Tensor, k: int) -> Tensor:
    """Finds the nearest other tokens of each token.

    A token's order of the others depends on its word piece alone. So the cosines are those of the
    different pieces of a text, a fourteenth of all pairs at 4,096 tokens of English.

    Args:
        embedding: Of each word piece. Shape: [vocabulary, width].
        ids: Word pieces. Shape: [batch, length], int64.
        lexical: Which tokens may ask and be found. Shape: [batch, length], bool.
        k: How many to find.

    Returns:
        Indices, -1 for none. Shape: [batch, length, min(k, length)], int64.
    """
    length = ids.shape[1]
    if not lexical.any():
        return ids.new_full((*ids.shape, min(k, length)), -1)
    pieces = _Pieces.of(ids, lexical)
    vectors = unit_vectors(embedding, pieces.ids)
    every = torch.arange(vectors.shape[1], device=ids.device)
    found = [_ranked(vectors, pieces, rows, k + 1) for rows in torch.split(every, PIECES)]
    # The first k that are not the token itself: it is moved behind them.
    keys = torch.cat(found, 1).gather(1, pieces.index[..., None].expand(-1, -1, k + 1))
    itself = keys == torch.arange(length, device=ids.device)[:, None]
    keys = keys.gather(2, itself.byte().argsort(dim=2, stable=True))
    return keys[..., : min(k, length)].masked_fill(~lexical[..., None], -1)


def unit_vectors(embedding: Tensor, ids: Tensor) -> Tensor:
    """The embeddings of word pieces, of length 1. Shape: that of `ids`, and width.

    In float64, equal cosines come out equal in whatever batch they are computed, so that ties are
    ties. Apple's GPUs have no float64.
    """
    wide = torch.float32 if embedding.device.type == "mps" else torch.float64
    return normalize(embedding[ids.to(embedding.device)].to(wide), dim=-1).to(ids.device)


@dataclass(frozen=True, eq=False)
class _Pieces:
    """The different word pieces of each text, and where they stand.

    Attributes:
        ids: Vocabulary ids, 0 beyond a text's last. Shape: [batch, pieces], int64.
        counts: How often each occurs. Shape: [batch, pieces], int64.
        starts: Where its positions start in `order`. Shape: [batch, pieces], int64.
        order: Positions, piece by piece, in ascending order. Shape: [batch, length], int64.
        index: The piece of each token; 0 for one that is not lexical. Shape: [batch, length].
    """

    ids: Tensor
    counts: Tensor
    starts: Tensor
    order: Tensor
    index: Tensor

    @classmethod
    def of(cls, ids: Tensor, lexical: Tensor) -> _Pieces:
        """Sorts the tokens of each text by their ids."""
        ordered, order = ids.masked_fill(~lexical, -1).sort(dim=1, stable=True)
        real = ordered >= 0
        first = real.clone()
        first[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
        number = (first.cumsum(1) - 1).clamp(min=0)
        most = int(first.sum(1).max())
        counts = torch.zeros_like(ids).scatter_add_(1, number, real.long())[:, :most]
        starts = (counts.cumsum(1) - counts) + (~real).sum(1, keepdim=True)
        slots = starts.clamp(max=ids.shape[1] - 1)
        index = torch.zeros_like(ids).scatter_(1, order, number)
        return cls(ordered.gather(1, slots).clamp(min=0), counts, starts, order, index)


def _ranked(vectors: Tensor, pieces: _Pieces, rows: Tensor, k: int) -> Tensor:
    """The `k` tokens nearest to each of some pieces, its own among them.

    They are among the first `k` tokens of the `k` pieces that are nearest, of equally near ones
    those that occur first: before a token of another piece stand a token of each of these.

    Returns:
        Positions, nearest first, -1 for none. Shape: [batch, rows, k], int64.
    """
    length = pieces.order.shape[1]
    cosines = ((vectors[:, rows] @ vectors.mT) * 2**24).round().long()
    first = pieces.order.gather(1, pieces.starts.clamp(max=length - 1))
    lowest = torch.iinfo(torch.int64).min
    # No two ranks alike: topk leaves the order of ties open.
    ranks = (cosines * length - first[:, None]).masked_fill(pieces.counts[:, None] == 0, lowest)
    best = ranks.topk(min(k, ranks.shape[2])).indices
    nth = torch.arange(min(k, int(pieces.counts.max())), device=rows.device)
    texts = torch.arange(len(best), device=rows.device)[:, None, None]
    slots = pieces.starts[texts, best][..., None] + nth
    missing = (nth >= pieces.counts[texts, best][..., None]).flatten(2)
    positions = pieces.order[texts, slots.flatten(2).clamp(max=length - 1)]
    ranks = cosines.gather(2, best)[..., None].expand(slots.shape).flatten(2) * length - positions
    ranks, chosen = ranks.masked_fill(missing, lowest).topk(min(k, ranks.shape[2]))
    found = positions.gather(2, chosen).masked_fill(ranks == lowest, -1)
    return pad(found, (0, k - found.shape[2]), value=-1)
