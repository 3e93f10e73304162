"""Random keys, drawn so that they depend on the text's length and on nothing else of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from sparseattn.tokens import TokenBatch

_Ints = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


@lru_cache(maxsize=512)
def draw(seed: int, layer: int, degrees: tuple[int, ...]) -> Tensor:
    """Draws distinct other keys for each of n queries, every set of keys as likely as any other.

    Time and memory grow with the number of keys drawn, not with n x n.

    Args:
        seed: With the layer and n, all that the outcome depends on.
        layer: The attention layer.
        degrees: How many others each of the n queries gets; more than n - 1 means all of them.

    Returns:
        Places from 0 to n - 1 in ascending order, -1 for none; not to be written to.
        Shape: [n, widest degree], int32.
    """
    others = len(degrees) - 1
    if others < 1:
        return torch.full((len(degrees), 0), -1, dtype=torch.int32)
    wanted = np.minimum(np.asarray(degrees, dtype=np.int64), others)
    # NumPy promises these raw bits for good, but not what its distributions make of them.
    bits = np.random.PCG64(np.random.SeedSequence([seed, layer, len(degrees)]))
    few = np.where(2 * wanted <= others, wanted, 0)
    codes = np.sort(np.concatenate([_few(bits, few, others), _most(bits, wanted - few, others)]))
    query, key = np.divmod(codes, others)
    column = np.arange(len(codes)) - np.repeat(np.cumsum(wanted) - wanted, wanted)
    table = np.full((len(degrees), int(wanted.max())), -1, dtype=np.int32)
    table[query, column] = key + (key >= query)  # the others of q, without the gap at q
    return torch.from_numpy(table)


@lru_cache(maxsize=512)
def draw_in_order(seed: int, layer: int, degree: int, length: int) -> Tensor:
    """The keys of `draw` for n queries, each query's in a random order. Shape: [n, degree]."""
    keys = draw(seed, layer, (degree,) * length)
    bits = np.random.PCG64(np.random.SeedSequence([seed, layer, length, degree]))
    raw = bits.random_raw(keys.numel()).reshape(keys.shape)
    return keys.gather(1, torch.from_numpy(raw.argsort(axis=1, kind="stable")))


def draw_beside(seed: int, layer: int, kept: Tensor, degrees: Tensor) -> Tensor:
    """Draws distinct keys for each of n queries out of those that it has not got yet.

    Takes n x n numbers, unlike `draw`.

    Args:
        seed: With the layer and n, all that the order of the draws depends on.
        layer: The attention layer.
        kept: Keys that a query has already. Shape: [n, n], bool.
        degrees: Keys that a query gets in all, those it has included; fewer draw none. Shape: [n].

    Returns:
        Places from 0 to n - 1, -1 for none. Shape: [n, widest], int64.
    """
    missing = (degrees - kept.sum(dim=1)).clamp(min=0)
    widest = int(missing.max()) if len(missing) else 0
    chances = _noise(seed, layer, len(kept)).masked_fill(kept, 2.0)
    order = chances.topk(widest, largest=False).indices
    return order.masked_fill(torch.arange(widest) >= missing[:, None], -1)


@lru_cache(maxsize=32)
def _noise(seed: int, layer: int, length: int) -> Tensor:
    """Independent uniform numbers in [0, 1), not to be written to. Shape: [length, length]."""
    bits = np.random.PCG64(np.random.SeedSequence([seed, layer, length]))
    raw = bits.random_raw(length * length).reshape(length, length)
    return torch.from_numpy((raw >> np.uint64(11)).astype(np.float64) / 2.0**53)


def _few(bits: np.random.PCG64, wanted: _Ints, others: int) -> _Ints:
    """Draws at most half of the others: draw with repeats, and again for what was repeated.

    No key is treated unlike another, so all sets of a size are equally likely.
    """
    codes = np.empty(0, dtype=np.int64)
    missing = wanted
    while missing.any():
        query = np.repeat(np.arange(len(wanted)), missing)
        key = (bits.random_raw(len(query)) % np.uint64(others)).astype(np.int64)
        codes = np.sort(np.concatenate([codes, query * others + key]), kind="stable")
        codes = codes[np.diff(codes, prepend=-1) > 0]
        missing = wanted - np.bincount(codes // others, minlength=len(wanted))
    return codes


def _most(bits: np.random.PCG64, wanted: _Ints, others: int) -> _Ints:
    """Draws more than half of the others: shuffle them and take the first."""
    rows = np.flatnonzero(wanted)
    raw = bits.random_raw(len(rows) * others).reshape(len(rows), others)
    order = raw.argsort(axis=1, kind="stable")
    taken = np.arange(others) < wanted[rows, None]
    codes: _Ints = (rows[:, None] * others + order)[taken]
    return codes


def in_batch(tokens: TokenBatch, places: Sequence[Tensor]) -> Tensor:
    """Moves keys from places among a row's real tokens to indices of the padded batch.

    Args:
        tokens: The batch.
        places: For each row, the keys of each of its n real tokens, -1 for none.
            Shape: [n, any], any int.

    Returns:
        Shape: [batch, length, widest], int64; -1 for none, and for padding.
    """
    widest = max((keys.shape[1] for keys in places), default=0)
    table = torch.full((tokens.batch, tokens.length, widest), -1)
    for row, keys in enumerate(places):
        table[row, : keys.shape[0], : keys.shape[1]] = keys
    table = table.to(tokens.device)
    index = (~tokens.valid).long().argsort(dim=1, stable=True)  # of the p-th real token
    moved = index.gather(1, table.clamp(min=0).flatten(1)).view_as(table)
    moved = moved.masked_fill(table < 0, -1)
    query = tokens.positions.clamp(min=0)[..., None].expand_as(table)
    return moved.gather(1, query).masked_fill(~tokens.valid[..., None], -1)
