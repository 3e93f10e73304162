"""Keys of single queries of a tile: pairs that are computed one by one, vectors along the width.

A key that one query of sixteen may attend to would cost the products of all sixteen. The scores of
such pairs stand in rows of a tile's scores in which each lane has a key of its own, or none; the
softmax goes over these rows as over the others.
"""

# Compiled by numba, from decorators without types.
# mypy: ignore-errors

from __future__ import annotations

import numpy as np

from sparseattn.backends.kernels.cpu.vectors import (
    LANES,
    compiled,
    fetch,
    fuse,
    hashed,
    load,
    multiply,
    offset,
    spread,
    store,
    totals,
)

#: How many pairs ahead a row is prefetched, one at a time: in two or three tiles' time. Fetching
#: all rows of a tile at once makes the processor wait (measured: docs/log.md).
AHEAD = 48
#: The bits of a place that are the lane.
LANE = LANES - 1


@compiled
def rows_of(pairs):
    """Rows of scores that the pairs of a tile take; they are in the order of these rows."""
    n, _, places, _ = pairs
    return (places[n - 1] // LANES + 1) if n else 0


@compiled
def _row(rows, stride, pairs, i, width):
    """The row of a pair's key; prefetches that of a pair further on, of whichever tile."""
    _, keys, _, last = pairs
    place = np.int64(keys[min(i + AHEAD, last)]) * stride
    for t in range(0, width, LANES):
        fetch(rows, place + t)
    return offset(rows, np.int64(keys[i]) * stride)


@compiled
def pair_products(rows, stride, pairs, tile, width, memory, scores):
    """Multiplies rows: scores[places[i]] = rows[keys[i]] . tile[its lane].

    `memory` has room for seventeen vectors.
    """
    n, _, places, _ = pairs
    sums = offset(memory, LANES * LANES)
    for i in range(0, n, LANES):
        for j in range(LANES):
            at = min(i + j, n - 1)
            row = _row(rows, stride, pairs, at, width)
            other = offset(tile, (places[at] & LANE) * width)
            product = multiply(load(row, 0), load(other, 0))
            for t in range(LANES, width, LANES):
                product = fuse(load(row, t), load(other, t), product)
            store(memory, j * LANES, product)
        totals(memory, sums)
        for j in range(min(LANES, n - i)):
            scores[places[i + j]] = sums[j]


@compiled
def add_pairs(rows, stride, pairs, weights, width, tile):
    """Adds to a tile: tile[lane] += weights[places[i]] rows[keys[i]]."""
    n, _, places, _ = pairs
    for i in range(n):
        row = _row(rows, stride, pairs, i, width)
        target = offset(tile, (places[i] & LANE) * width)
        weight = spread(weights[places[i]])
        for t in range(0, width, LANES):
            store(target, t, fuse(weight, load(row, t), load(target, t)))


@compiled
def scatter_pairs(weights, pairs, tile, width, rows, stride):
    """Adds to rows: rows[keys[i]] += weights[places[i]] tile[its lane]."""
    n, _, places, _ = pairs
    for i in range(n):
        row = _row(rows, stride, pairs, i, width)
        source = offset(tile, (places[i] & LANE) * width)
        weight = spread(weights[places[i]])
        for t in range(0, width, LANES):
            store(row, t, fuse(weight, load(source, t), load(row, t)))


@compiled
def drop_pairs(values, pairs, states, threshold, kept, dropped):
    """Multiplies the values of pairs by `kept`, or by `dropped` where dropout takes them.

    The hash is that of `vectors.keep_lanes`: a pair's fate is the same in whatever list it stands.
    """
    n, keys, places, _ = pairs
    for i in range(n):
        key = np.int64(keys[i]) * 0x9E3779B9 & 0xFFFFFFFF
        keep = hashed(np.int64(states[places[i] & LANE]) ^ key) >= threshold
        values[places[i]] *= kept if keep else dropped
