"""Lists of keys for tiles of queries, and how they are put together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparseattn.rules import LayerRule

__all__ = ["Lists", "bits_of", "joined", "packed", "tiled"]


@dataclass(frozen=True, eq=False)
class Lists:
    """The lists of some heads, for one text or for each of them.

    Attributes:
        queries: Shape: [texts or 1, tiles, size], int64; -1 for none.
        starts: Shape: [texts or 1, tiles], int64.
        counts: Shape: [texts or 1, tiles], int64.
        keys: Shape: [entries], int64.
        bits: Shape: [entries], int64.
    """

    queries: Tensor
    starts: Tensor
    counts: Tensor
    keys: Tensor
    bits: Tensor


def tiled(order: Tensor, rule: LayerRule, rows: int, size: int) -> Tensor:
    """Queries in tiles, padding left out. Shape: [rows, tiles, size]."""
    tiles = -(-len(order) // size)
    queries = order.new_full((tiles * size,), -1)
    queries[: len(order)] = order
    queries = queries.expand(rows, -1)
    if rule.padded:
        queries = queries.masked_fill(~rule.valid[:, queries[0]], -1)
    return queries.reshape(rows, tiles, size)


def bits_of(flags: Tensor, dim: int) -> Tensor:
    """Booleans along a dimension as the bits of one number; at most 64."""
    shape = [1] * flags.dim()
    shape[dim] = -1
    weights = torch.ones((), dtype=torch.int64, device=flags.device) << torch.arange(
        flags.shape[dim], device=flags.device
    )
    return (flags * weights.view(shape)).sum(dim)


def packed(queries: Tensor, keys: Tensor, bits: Tensor) -> Lists:
    """Lists without the entries that no query wants."""
    wanted = bits != 0
    counts = wanted.sum(2)
    ends = counts.flatten().cumsum(0).view_as(counts)
    return Lists(queries, ends - counts, counts, keys[wanted], bits[wanted])


def joined(first: Lists, second: Lists) -> Lists:
    """The tiles of two lists, text by text."""
    return Lists(
        torch.cat([first.queries, second.queries], 1),
        torch.cat([first.starts, second.starts + len(first.keys)], 1),
        torch.cat([first.counts, second.counts], 1),
        torch.cat([first.keys, second.keys]),
        torch.cat([first.bits, second.bits]),
    )
