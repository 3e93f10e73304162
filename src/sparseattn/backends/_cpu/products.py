"""The matrix products of attention over one tile, each a loop over `multiply_add`."""

# Compiled by numba, from decorators without types.
# mypy: ignore-errors

from __future__ import annotations

import numpy as np
from numba import njit

from sparseattn.backends._cpu.vectors import (
    LANES,
    UNROLL,
    add,
    load,
    multiply,
    multiply_add,
    offset,
    spread,
    store,
    transpose,
    zeros,
)

__all__ = ["compiled", "gather", "mix", "products", "scatter", "spill"]

compiled = njit(fastmath={"contract", "nsz"}, error_model="numpy", boundscheck=False)


@compiled
def _eight(keys, j, n, stride):
    """Places of eight rows; beyond the last key it is repeated."""
    last = n - 1
    return (
        keys[j] * stride,
        keys[min(j + 1, last)] * stride,
        keys[min(j + 2, last)] * stride,
        keys[min(j + 3, last)] * stride,
        keys[min(j + 4, last)] * stride,
        keys[min(j + 5, last)] * stride,
        keys[min(j + 6, last)] * stride,
        keys[min(j + 7, last)] * stride,
    )


@compiled
def _steps(at, by):
    """Eight places, `by` apart."""
    first = (at, at + by, at + 2 * by, at + 3 * by)
    at += 4 * by
    return (*first, at, at + by, at + 2 * by, at + 3 * by)


@compiled
def products(rows, stride, keys, n, columns, width, scores):
    """Multiplies rows: scores[j] = rows[keys[j]] . columns, lane by lane."""
    for j in range(0, n, UNROLL):
        places = _eight(keys, j, n, stride)
        block = zeros(columns)
        for t in range(width):
            block = multiply_add(rows, places, t, load(columns, t * LANES), block)
        for i in range(UNROLL):
            store(scores, (j + i) * LANES, block[i])


@compiled
def mix(rows, stride, keys, n, weights, width, columns):
    """Mixes rows: columns = sum of weights[j] rows[keys[j]], lane by lane."""
    for t in range(0, width, UNROLL):
        places = _steps(t, 1)
        block = zeros(weights)
        for j in range(n):
            block = multiply_add(rows, places, keys[j] * stride, load(weights, j * LANES), block)
        for i in range(UNROLL):
            store(columns, (t + i) * LANES, block[i])


@compiled
def scatter(weights, keys, n, tile, width, rows, stride):
    """Adds to rows: rows[keys[j]] += sum over lanes of weights[j, lane] tile[lane]."""
    for j in range(0, n, UNROLL):
        to = _eight(keys, j, n, stride)
        places = _steps(j * LANES, LANES)
        for t in range(0, width, LANES):
            block = zeros(tile)
            for lane in range(LANES):
                block = multiply_add(weights, places, lane, load(tile, lane * width + t), block)
            for i in range(min(UNROLL, n - j)):
                store(rows, to[i] + t, add(load(rows, to[i] + t), block[i]))


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
def spill(columns, queries, width, factor, tile, rows, stride):
    """Writes the lanes to the rows of their queries."""
    times = spread(factor)
    for t in range(0, width, LANES):
        transpose(offset(columns, t * LANES), LANES, offset(tile, t), width)
    for lane in range(LANES):
        row = np.int64(queries[lane])
        if row >= 0:
            for t in range(0, width, LANES):
                store(rows, row * stride + t, multiply(load(tile, lane * width + t), times))
