"""Lists of keys of tiles, one behind the other: keys that queries share, and scattered pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Ragged:
    """A list for each tile.

    Attributes:
        starts: Where each list starts. Shape: [texts or 1, tiles] or [tiles], int64.
        counts: How long it is. Shape: that of `starts`, int64.
        keys: The lists. Shape: [entries], int64 or int32.
        marks: What is known of each key. Shape: [entries], int64 or int32.
    """

    starts: Tensor
    counts: Tensor
    keys: Tensor
    marks: Tensor

    @classmethod
    def of(cls, counts: Tensor, keys: Tensor, marks: Tensor) -> Ragged:
        """Lists in the order of their tiles."""
        ends = counts.flatten().cumsum(0).view_as(counts)
        return cls(ends - counts, counts, keys, marks)

    def join(self, other: Ragged) -> Ragged:
        """The tiles of two, text by text."""
        return Ragged(
            torch.cat([self.starts, other.starts + len(self.keys)], 1),
            torch.cat([self.counts, other.counts], 1),
            torch.cat([self.keys, other.keys]),
            torch.cat([self.marks, other.marks]),
        )

    @classmethod
    def flat(cls, pieces: Sequence[Ragged], marks: torch.dtype) -> Ragged:
        """The tiles of all, one behind the other, for a kernel."""
        starts, entries = [], 0
        for piece in pieces:
            starts.append(piece.starts.flatten() + entries)
            entries += len(piece.keys)
        return cls(
            torch.cat(starts),
            torch.cat([p.counts.flatten() for p in pieces]),
            torch.cat([p.keys for p in pieces]).int(),
            torch.cat([p.marks for p in pieces]).to(marks),
        )


@dataclass(frozen=True, eq=False)
class Lists:
    """The lists of some heads, for one text or for each of them.

    Attributes:
        queries: Shape: [texts or 1, tiles, size], int64; -1 for none.
        shared: Keys; their marks have one bit for each query that may attend to them.
        scattered: Keys of single queries. A mark is a place, `row * size + lane`: the query's place
            in the tile, and how many such keys of that query stand before. In the order of places.
    """

    queries: Tensor
    shared: Ragged
    scattered: Ragged

    def join(self, other: Lists) -> Lists:
        """The tiles of two, text by text."""
        queries = torch.cat([self.queries, other.queries], 1)
        shared = self.shared.join(other.shared)
        return Lists(queries, shared, self.scattered.join(other.scattered))


def pack(queries: Tensor, keys: Tensor, bits: Tensor, scatter: bool = False) -> Lists:
    """The lists of entries that some query needs.

    Args:
        queries: See `Lists`.
        keys: Shape: [texts or 1, tiles, entries], int64.
        bits: Which queries need each. Shape: [texts or 1, tiles, entries], int64.
        scatter: Whether keys of single queries become scattered pairs.
    """
    needed = bits != 0
    shared = (bits & (bits - 1)) != 0 if scatter else needed
    scattered = _pairs(keys, bits, needed & ~shared, queries.shape[2])
    return Lists(queries, Ragged.of(shared.sum(2), keys[shared], bits[shared]), scattered)


def _pairs(keys: Tensor, bits: Tensor, chosen: Tensor, size: int) -> Ragged:
    """The chosen entries, of one bit each, as scattered pairs."""
    counts = chosen.sum(2)
    tile = torch.arange(counts.numel(), device=keys.device).repeat_interleave(counts.flatten())
    lane = bits[chosen].double().log2().long()
    # The row of a pair is how many pairs of its query stand before it.
    query = tile * size + lane
    order = query.argsort(stable=True)
    amounts = torch.bincount(query, minlength=counts.numel() * size)
    before = amounts.cumsum(0) - amounts
    row = torch.empty_like(order)
    row[order] = torch.arange(len(order), device=keys.device) - before[query[order]]
    place = row * size + lane
    order = (tile * (len(place) + 1) * size + place).argsort()
    return Ragged.of(counts, keys[chosen][order], place[order])


def merged(keys: Tensor, bits: Tensor) -> tuple[Tensor, Tensor]:
    """Entries of equal keys as one, whose bits are those of all; in the order of keys.

    Args:
        keys: Shape: [texts or 1, tiles, entries], int64.
        bits: No bit twice for one key. Shape: [texts or 1, tiles, entries], int64.
    """
    keys, order = keys.sort(2)
    starts = torch.ones_like(keys, dtype=torch.bool)
    starts[..., 1:] = keys[..., 1:] != keys[..., :-1]
    run = starts.cumsum(2) - 1
    together = torch.zeros_like(bits).scatter_add_(2, run, bits.gather(2, order))
    return torch.zeros_like(keys).scatter_(2, run, keys), together
