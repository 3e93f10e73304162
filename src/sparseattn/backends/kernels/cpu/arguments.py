"""The kernel's one argument: an array of numbers and addresses, and what stands where in it.

It holds int64: counts, addresses of arrays, and for each tensor its address and the strides of
text, head and row in numbers.
"""

# Compiled by numba, from decorators without types.
# mypy: ignore-errors

from __future__ import annotations

import numpy as np

from sparseattn.backends.kernels.cpu.vectors import LANES, compiled, hashed, offset, pointer

(NEXT, TEXTS, HEADS, LENGTH, WIDTH, LONGEST, PAIR_ROWS, CHUNKS, SHARES, SEED, THRESHOLD) = range(11)
(SIZE, POISON, NUMBERS, QUERIES, STARTS, COUNTS, KEYS, BITS) = range(11, 19)
(PAIRS, PAIR_STARTS, PAIR_COUNTS, PAIR_KEYS, PAIR_PLACES) = range(19, 24)
(FIRST, GROUP, ORDER, SHARE_STARTS) = range(24, 28)
(Q, K, V, OUT, LSE, DOUT, DQ, DK, DV, BIAS, DBIAS) = range(28, 72, 4)
ARGUMENTS = 72
# The array at NUMBERS, in the type that is computed with.
(SCALE, KEEP, ZERO, ONE, LOWEST, NOTHING) = range(6)


@compiled
def head_rows(a, tensor, text, head, like):
    """The first row of a head."""
    place = text * a[tensor + 1] + head * a[tensor + 2]
    return pointer(a[tensor] + a[SIZE] * place, like)


@compiled
def list_of(a, tile):
    """How many keys a tile has, the keys, and which of its queries may attend to each."""
    begin = pointer(a[STARTS], 0)[tile]
    keys = offset(pointer(a[KEYS], np.int32(0)), begin)
    return pointer(a[COUNTS], 0)[tile], keys, offset(pointer(a[BITS], np.int32(0)), begin)


@compiled
def pairs_of(a, tile):
    """The scattered pairs of a tile: how many, their keys, their places, and the last of all."""
    begin = pointer(a[PAIR_STARTS], 0)[tile]
    keys = offset(pointer(a[PAIR_KEYS], np.int32(0)), begin)
    places = offset(pointer(a[PAIR_PLACES], np.int32(0)), begin)
    return pointer(a[PAIR_COUNTS], 0)[tile], keys, places, a[PAIRS] - begin - 1


@compiled
def queries_of(a, tile):
    """The queries of a tile, -1 for none."""
    return offset(pointer(a[QUERIES], np.int32(0)), tile * LANES)


@compiled
def seeds(a, text, head, queries, states):
    """The dropout state of each lane: a hash of the seed, the text, the head and the query."""
    start = a[SEED] + (text * a[HEADS] + head) * 0x9E3779B1
    for lane in range(LANES):
        states[lane] = hashed((np.int64(queries[lane]) * 0x632BE5AB + start) & 0xFFFFFFFF)
