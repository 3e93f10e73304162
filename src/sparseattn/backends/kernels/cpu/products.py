"""The matrix products of attention over one tile, each a loop over `multiply_add`."""

# Compiled by numba, from decorators without types.
# mypy: ignore-errors

from __future__ import annotations

import numpy as np
from numba import njit

from sparseattn.backends.kernels.cpu.blocks import (
    PAIRS,
    UNROLL,
    multiply_add,
    multiply_add_both,
    places_of,
    steps,
    zeros,
)
from sparseattn.backends.kernels.cpu.vectors import (
    LANES,
    add,
    load,
    multiply,
    offset,
    spread,
    store,
    transpose,
)

__all__ = ["compiled", "gather", "products", "scatter", "store_rows", "weighted_sum"]

compiled = njit(fastmath={"contract", "nsz"}, error_model="numpy", boundscheck=False)


@compiled
def products(rows, stride, keys, n, columns, width, scores):
    """Multiplies rows: scores[j] = rows[keys[j]] . columns, lane by lane."""
    for j in range(0, n, UNROLL):
        places = places_of(keys, j, n, stride)
        block = zeros(columns)
        for t in range(width):
            block = multiply_add(rows, places, t, load(columns, t * LANES), block)
        for i in range(UNROLL):
            store(scores, (j + i) * LANES, block[i])


@compiled
def _weighted_sum_pair(rows, stride, keys, n, weights, lane, t, width, tile):
    places = steps(lane, 1)
    pair = zeros(rows), zeros(rows)
    for j in range(n):
        row = keys[j] * stride + t
        left, right = load(rows, row), load(rows, row + LANES)
        pair = multiply_add_both(weights, places, j * LANES, left, right, pair)
    for i in range(UNROLL):
        store(tile, (lane + i) * width + t, pair[0][i])
        store(tile, (lane + i) * width + t + LANES, pair[1][i])


@compiled
def _weighted_sum_one(rows, stride, keys, n, weights, lane, t, width, tile):
    places = steps(lane, 1)
    block = zeros(rows)
    for j in range(n):
        row = load(rows, keys[j] * stride + t)
        block = multiply_add(weights, places, j * LANES, row, block)
    for i in range(UNROLL):
        store(tile, (lane + i) * width + t, block[i])


@compiled
def weighted_sum(rows, stride, keys, n, weights, width, tile):
    """Mixes rows: tile[lane] = sum of weights[j, lane] rows[keys[j]]."""
    paired = width // (2 * LANES) * (2 * LANES) if PAIRS else 0
    for lane in range(0, LANES, UNROLL):
        for t in range(0, paired, 2 * LANES):
            _weighted_sum_pair(rows, stride, keys, n, weights, lane, t, width, tile)
        for t in range(paired, width, LANES):
            _weighted_sum_one(rows, stride, keys, n, weights, lane, t, width, tile)


@compiled
def _scatter_pair(weights, j, n, tile, width, t, rows, to):
    places = steps(j * LANES, LANES)
    pair = zeros(tile), zeros(tile)
    for lane in range(LANES):
        at = lane * width + t
        left, right = load(tile, at), load(tile, at + LANES)
        pair = multiply_add_both(weights, places, lane, left, right, pair)
    for i in range(min(UNROLL, n - j)):
        at = to[i] + t
        store(rows, at, add(load(rows, at), pair[0][i]))
        store(rows, at + LANES, add(load(rows, at + LANES), pair[1][i]))


@compiled
def _scatter_one(weights, j, n, tile, width, t, rows, to):
    places = steps(j * LANES, LANES)
    block = zeros(tile)
    for lane in range(LANES):
        block = multiply_add(weights, places, lane, load(tile, lane * width + t), block)
    for i in range(min(UNROLL, n - j)):
        store(rows, to[i] + t, add(load(rows, to[i] + t), block[i]))


@compiled
def scatter(weights, keys, n, tile, width, rows, stride):
    """Adds to rows: rows[keys[j]] += sum over lanes of weights[j, lane] tile[lane]."""
    paired = width // (2 * LANES) * (2 * LANES) if PAIRS else 0
    for j in range(0, n, UNROLL):
        to = places_of(keys, j, n, stride)
        for t in range(0, paired, 2 * LANES):
            _scatter_pair(weights, j, n, tile, width, t, rows, to)
        for t in range(paired, width, LANES):
            _scatter_one(weights, j, n, tile, width, t, rows, to)


@compiled
def gather(rows, stride, queries, width, factor, tile, columns):
    """Copies the rows of a tile's queries, and the same transposed; zeros where there is none."""
    times = spread(factor)
    for lane in range(LANES):
        row = np.int64(queries[lane])
        for t in range(0, width, LANES):
            value = zeros(rows)[0]
            if row >= 0:
                value = multiply(load(rows, row * stride + t), times)
            store(tile, lane * width + t, value)
    for t in range(0, width, LANES):
        transpose(offset(tile, t), width, offset(columns, t * LANES), LANES)


@compiled
def store_rows(tile, queries, width, factors, rows, stride):
    """Writes a tile, each lane times its own factor, to the rows of its queries."""
    for lane in range(LANES):
        row = np.int64(queries[lane])
        if row >= 0:
            times = spread(factors[lane])
            for t in range(0, width, LANES):
                store(rows, row * stride + t, multiply(load(tile, lane * width + t), times))
