"""A number for each distance between query and key, added to the scores, and its gradient.

The numbers of a head stand from `query - key = 1 - length` to `length - 1`, with sixteen of no
meaning before and after them. The lanes of a tile are mostly sixteen queries in a row: for one key
their numbers stand side by side.
"""

# Compiled by numba, from decorators without types.
# mypy: ignore-errors

from __future__ import annotations

import numpy as np

from sparseattn.backends.kernels.cpu.arguments import BIAS, DBIAS, LENGTH, head_rows
from sparseattn.backends.kernels.cpu.scattered import LANE
from sparseattn.backends.kernels.cpu.vectors import LANES, add, compiled, load, offset, store


@compiled
def _numbers(a, tensor, text, head, like):
    """The numbers of a head, from that of distance 0 on."""
    return offset(head_rows(a, tensor, text, head, like), a[LENGTH] - 1 + LANES)


@compiled
def _first(queries):
    """The query of the first lane if the lanes are in a row, as far as they hold queries."""
    first, known = 0, False
    for lane in range(LANES):
        query = np.int64(queries[lane])
        if query >= 0:
            if known and query - lane != first:
                return 0, False
            first, known = query - lane, True
    return first, known


@compiled
def add_bias(a, text, head, queries, keys, n, scores, pairs, own, like):
    """Adds to the scores of a tile, and to those of its scattered pairs."""
    if a[BIAS] == 0:
        return
    numbers = _numbers(a, BIAS, text, head, like)
    first, in_row = _first(queries)
    if in_row:
        for j in range(n):
            more = load(numbers, first - np.int64(keys[j]))
            store(scores, j * LANES, add(load(scores, j * LANES), more))
    else:
        for j in range(n):
            for lane in range(LANES):
                scores[j * LANES + lane] += numbers[np.int64(queries[lane]) - keys[j]]
    count, others, places, _ = pairs
    for i in range(count):
        own[places[i]] += numbers[np.int64(queries[places[i] & LANE]) - others[i]]


@compiled
def add_bias_gradients(a, text, head, queries, keys, n, back, pairs, own, like):
    """Adds the gradients of a tile's scores to those of the numbers."""
    if a[DBIAS] == 0:
        return
    numbers = _numbers(a, DBIAS, text, head, like)
    first, in_row = _first(queries)
    if in_row:
        for j in range(n):
            place = first - np.int64(keys[j])
            store(numbers, place, add(load(numbers, place), load(back, j * LANES)))
    else:
        for j in range(n):
            for lane in range(LANES):
                numbers[np.int64(queries[lane]) - keys[j]] += back[j * LANES + lane]
    count, others, places, _ = pairs
    for i in range(count):
        numbers[np.int64(queries[places[i] & LANE]) - others[i]] += own[places[i]]


@compiled
def add_lane_bias(a, text, head, row, keys, n, scores, like):
    """`add_bias` of one query."""
    if a[BIAS] != 0:
        numbers = _numbers(a, BIAS, text, head, like)
        for j in range(n):
            scores[j] += numbers[row - keys[j]]


@compiled
def add_lane_gradients(a, text, head, row, keys, n, back, like):
    """`add_bias_gradients` of one query."""
    if a[DBIAS] != 0:
        numbers = _numbers(a, DBIAS, text, head, like)
        for j in range(n):
            numbers[row - keys[j]] += back[j]
