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
def _numbers(a, tensor, text, head, like):
    """The numbers of a head, from that of distance 0 on."""
    return offset(head_rows(a, tensor, text, head, like), a[LENGTH] - 1 + LANES)


@compiled
def _add(numbers, place, scores, at, gradient):
    if gradient:
        numbers[place] += scores[at]
    else:
        scores[at] += numbers[place]


@compiled
def add_bias(a, text, head, queries, keys, n, scores, pairs, own, gradient, like):
    """Adds to the scores of a tile, and to those of its scattered pairs.

    With `gradient` these are gradients, and they are added to those of the numbers.
    """
    tensor = DBIAS if gradient else BIAS
    if a[tensor] == 0:
        return
    numbers = _numbers(a, tensor, text, head, like)
    first, in_row = _first(queries)
    if in_row:
        for j in range(n):
            place = first - np.int64(keys[j])
            both = add(load(scores, j * LANES), load(numbers, place))
            if gradient:
                store(numbers, place, both)
            else:
                store(scores, j * LANES, both)
    else:
        for j in range(n):
            for lane in range(LANES):
                place = np.int64(queries[lane]) - keys[j]
                _add(numbers, place, scores, j * LANES + lane, gradient)
    count, others, places, _ = pairs
    for i in range(count):
        place = np.int64(queries[places[i] & LANE]) - others[i]
        _add(numbers, place, own, places[i], gradient)


@compiled
def add_lane_bias(a, text, head, row, keys, n, scores, gradient, like):
    """`add_bias` of one query."""
    tensor = DBIAS if gradient else BIAS
    if a[tensor] != 0:
        numbers = _numbers(a, tensor, text, head, like)
        for j in range(n):
            _add(numbers, row - keys[j], scores, j, gradient)
