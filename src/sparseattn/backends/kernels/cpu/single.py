"""Attention of one query over a list of keys, vectors along the width: for global tokens.

A tile whose other lanes hold no query would compute sixteen times as much. The scores of a query
lie side by side, so that exponentials are taken of sixteen keys at a time.
"""

# Compiled by numba, from decorators without types.
# mypy: ignore-errors

from __future__ import annotations

import math

import numpy as np

from sparseattn.backends.kernels.cpu.arguments import (
    DK,
    DOUT,
    DQ,
    DV,
    KEEP,
    LOWEST,
    LSE,
    NUMBERS,
    ONE,
    OUT,
    SCALE,
    THRESHOLD,
    WIDTH,
    ZERO,
    K,
    Q,
    V,
    head_rows,
    list_of,
    queries_of,
    seeds,
)
from sparseattn.backends.kernels.cpu.bias import add_lane_bias
from sparseattn.backends.kernels.cpu.vectors import (
    LANES,
    add,
    compiled,
    exponential,
    fetch,
    fuse,
    keep_lanes,
    load,
    multiply,
    offset,
    pointer,
    spread,
    store,
    subtract,
    total,
)

#: How many rows ahead a row is prefetched.
AHEAD = 16


@compiled
def _scaled(row, factor, width, copy):
    times = spread(factor)
    for t in range(0, width, LANES):
        store(copy, t, multiply(load(row, t), times))


@compiled
def _prefetch_rows(rows, stride, keys, j, n, width):
    """Prefetches a row that is needed soon: a long text does not fit in the cache."""
    place = keys[min(j + AHEAD, n - 1)] * stride
    for t in range(0, width, LANES):
        fetch(rows, place + t)


@compiled
def _dots(rows, stride, keys, n, vector, width, dots):
    """Multiplies rows with a vector: dots[j] = rows[keys[j]] . vector."""
    for j in range(n):
        _prefetch_rows(rows, stride, keys, j, n, width)
        row = offset(rows, keys[j] * stride)
        sums = multiply(load(row, 0), load(vector, 0))
        for t in range(LANES, width, LANES):
            sums = fuse(load(row, t), load(vector, t), sums)
        dots[j] = total(sums)


@compiled
def _weighted_sum(rows, stride, keys, n, weights, width, nought, sums):
    """The sum of weights[j] rows[keys[j]]; `sums` has room for twice as many numbers.

    All of a row in one go, with the sums in memory: rows come from afar, the sums are at hand. Odd
    keys have sums of their own, because each addition has to wait for the one before.
    """
    nought = spread(nought)
    for t in range(0, 2 * width, LANES):
        store(sums, t, nought)
    for j in range(n):
        _prefetch_rows(rows, stride, keys, j, n, width)
        row, weight = offset(rows, keys[j] * stride), spread(weights[j])
        target = offset(sums, (j % 2) * width)
        for t in range(0, width, LANES):
            store(target, t, fuse(weight, load(row, t), load(target, t)))
    for t in range(0, width, LANES):
        store(sums, t, add(load(sums, t), load(sums, width + t)))


@compiled
def _add_outer(rows, stride, keys, n, weights, vector, width):
    """Adds to rows: rows[keys[j]] += weights[j] vector."""
    for j in range(n):
        _prefetch_rows(rows, stride, keys, j, n, width)
        row, weight = offset(rows, keys[j] * stride), spread(weights[j])
        for t in range(0, width, LANES):
            store(row, t, fuse(weight, load(vector, t), load(row, t)))


@compiled
def _exponentials(scores, n, less):
    """Replaces scores by exp(score - less); the rest of the last vector holds anything."""
    for j in range(n, (n + LANES - 1) // LANES * LANES):
        scores[j] = less
    shift = spread(less)
    for j in range(0, n, LANES):
        store(scores, j, exponential(subtract(load(scores, j), shift)))


@compiled
def _largest(scores, bits, n, lane, lowest):
    top = lowest
    for j in range(n):
        if bits[j] >> lane & 1 and scores[j] > top:
            top = scores[j]
    return top


@compiled
def _forward_lane(a, text, head, row, lane, states, memory, lists, like):
    width, numbers = a[WIDTH], pointer(a[NUMBERS], like)
    n, keys, bits = lists
    q, sums, scores = memory, offset(memory, width), offset(memory, 3 * width)
    at = offset(head_rows(a, Q, text, head, like), row * a[Q + 3])
    _scaled(at, numbers[SCALE], width, q)
    _dots(head_rows(a, K, text, head, like), a[K + 3], keys, n, q, width, scores)
    add_lane_bias(a, text, head, row, keys, n, scores, False, like)
    top = _largest(scores, bits, n, lane, numbers[LOWEST])
    _exponentials(scores, n, top)
    divisor = numbers[ZERO]
    for j in range(n):
        if not bits[j] >> lane & 1:
            scores[j] = numbers[ZERO]
        divisor += scores[j]
    if a[THRESHOLD] > 0:
        for j in range(n):
            if not keep_lanes(states, np.int64(keys[j]), a[THRESHOLD]) >> lane & 1:
                scores[j] = numbers[ZERO]
    share = spread(numbers[KEEP] / divisor)
    values, out = head_rows(a, V, text, head, like), head_rows(a, OUT, text, head, like)
    _weighted_sum(values, a[V + 3], keys, n, scores, width, numbers[ZERO], sums)
    for t in range(0, width, LANES):
        store(out, row * a[OUT + 3] + t, multiply(load(sums, t), share))
    lse = head_rows(a, LSE, text, head, like)
    lse[row] = top + math.log(divisor)


@compiled
def forward_single(a, text, head, tile, memory, states, like):
    """Contexts and logs of the sums of exponentials of a tile of few queries."""
    queries, lists = queries_of(a, tile), list_of(a, tile)
    if a[THRESHOLD] > 0:
        seeds(a, text, head, queries, states)
    for lane in range(LANES):
        row = np.int64(queries[lane])
        if row >= 0:
            _forward_lane(a, text, head, row, lane, states, memory, lists, like)


@compiled
def _score_gradients(a, scores, back, lists, lane, sums, states, numbers):
    """Turns exponentials into weights after dropout, and `back` into gradients of the scores."""
    n, keys, bits = lists
    for j in range(n):
        weight, factor = scores[j], numbers[ONE]
        if a[THRESHOLD] > 0:
            keep = keep_lanes(states, np.int64(keys[j]), a[THRESHOLD]) >> lane & 1
            factor = numbers[KEEP] if keep else numbers[ZERO]
        allowed = bits[j] >> lane & 1
        scores[j] = weight * factor if allowed else numbers[ZERO]
        back[j] = weight * (back[j] * factor - sums) if allowed else numbers[ZERO]


@compiled
def _backward_lane(a, text, head, row, lane, states, memory, lists, like):
    width, numbers = a[WIDTH], pointer(a[NUMBERS], like)
    n, keys, _ = lists
    q, sums, delta = memory, offset(memory, width), offset(memory, 3 * width)
    scores = offset(delta, LANES)
    back = offset(scores, n + LANES)
    key, grad = head_rows(a, K, text, head, like), head_rows(a, DOUT, text, head, like)
    grad = offset(grad, row * a[DOUT + 3])
    at = offset(head_rows(a, Q, text, head, like), row * a[Q + 3])
    _scaled(at, numbers[SCALE], width, q)
    _dots(key, a[K + 3], keys, n, q, width, scores)
    add_lane_bias(a, text, head, row, keys, n, scores, False, like)
    _dots(head_rows(a, V, text, head, like), a[V + 3], keys, n, grad, width, back)
    out = offset(head_rows(a, OUT, text, head, like), row * a[OUT + 3])
    _dots(out, 0, keys, 1, grad, width, delta)
    lse = head_rows(a, LSE, text, head, like)
    _exponentials(scores, n, lse[row])
    _score_gradients(a, scores, back, lists, lane, delta[0], states, numbers)
    add_lane_bias(a, text, head, row, keys, n, back, True, like)
    _add_outer(head_rows(a, DV, text, head, like), a[DV + 3], keys, n, scores, grad, width)
    _add_outer(head_rows(a, DK, text, head, like), a[DK + 3], keys, n, back, q, width)
    target = offset(head_rows(a, DQ, text, head, like), row * a[DQ + 3])
    times = spread(numbers[SCALE])
    _weighted_sum(key, a[K + 3], keys, n, back, width, numbers[ZERO], sums)
    for t in range(0, width, LANES):
        store(target, t, multiply(load(sums, t), times))


@compiled
def backward_single(a, text, head, tile, memory, states, like):
    """Gradients of a tile of few queries, and its share of those of keys and values."""
    queries, lists = queries_of(a, tile), list_of(a, tile)
    if a[THRESHOLD] > 0:
        seeds(a, text, head, queries, states)
    for lane in range(LANES):
        row = np.int64(queries[lane])
        if row >= 0:
            _backward_lane(a, text, head, row, lane, states, memory, lists, like)
