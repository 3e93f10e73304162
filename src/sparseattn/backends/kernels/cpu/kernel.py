"""The attention kernel for CPUs, for numba: which thread computes which tiles of 16 queries.

Threads take work from a shared counter: in the forward pass some tiles of a head, in the backward
pass all tiles of some heads of a text, because tiles of one head add to the same gradients.
"""

# Compiled by numba, from decorators without types.
# mypy: ignore-errors

from __future__ import annotations

import numpy as np

from sparseattn.backends.kernels.cpu.arguments import (
    CHUNKS,
    DK,
    DOUT,
    DV,
    FIRST,
    GROUP,
    HEADS,
    LONGEST,
    ORDER,
    OUT,
    PAIR_ROWS,
    POISON,
    SHARE_STARTS,
    SHARES,
    SIZE,
    TEXTS,
    WIDTH,
    K,
    Q,
    V,
    head_rows,
    list_of,
    pairs_of,
    queries_of,
)
from sparseattn.backends.kernels.cpu.products import UNROLL
from sparseattn.backends.kernels.cpu.single import backward_single, forward_single
from sparseattn.backends.kernels.cpu.tile import backward_tile, forward_tile
from sparseattn.backends.kernels.cpu.vectors import LANES, compiled, fetch, pointer, take_next

#: Tiles that a thread takes of one head before it goes on to the next. The rows of several heads
#: share memory pages: one head at a time through a long text would miss the cache.
CHUNK = 4
#: Queries in a tile up to which they are computed one by one.
FEW = 3
#: Rows of a list that are prefetched at most: more would push out what is in use.
_MOST = 512
#: Rows at the end of a list that the tile before it is taken not to have: a window moves on by
#: sixteen, and global tokens stand behind it.
_NEW = LANES + 8
#: Bytes of a line of the cache.
_LINE = 64


@compiled
def _scratch(a, numbers, like):
    """Memory of one thread; in tests full of NaN, to find what is read before it is written."""
    memory = np.empty((numbers + LANES) * a[SIZE], np.uint8)
    aligned = pointer((memory.ctypes.data + 63) // 64 * 64, like)
    if a[POISON]:
        for i in range(numbers):
            aligned[i] = np.nan
    return memory, aligned


@compiled
def _few(a, tile):
    queries, count = queries_of(a, tile), 0
    for lane in range(LANES):
        count += queries[lane] >= 0
    return count <= FEW and pairs_of(a, tile)[0] == 0


@compiled
def _chunk(a, text, head, chunk):
    """The first tile of a chunk of a head, and the one after its last."""
    place = 2 * (pointer(a[GROUP], 0)[head] * a[TEXTS] + text)
    first = pointer(a[FIRST], 0)
    begin = first[place] + chunk * CHUNK
    return begin, min(begin + CHUNK, first[place + 1])


@compiled
def _piece(a, item):
    """Text, head and chunk of a piece of work of the forward pass: the heads of a chunk first."""
    piece, head = item // a[HEADS], item % a[HEADS]
    return piece // a[CHUNKS], head, piece % a[CHUNKS]


@compiled
def _prefetch_rows(a, tensor, text, head, rows, begin, end, like):
    first, stride = head_rows(a, tensor, text, head, like), a[tensor + 3]
    width, step = a[WIDTH], _LINE // a[SIZE]
    for j in range(begin, end):
        place = rows[j] * stride
        for t in range(0, width, step):
            fetch(first, place + t)


@compiled
def prefetch(a, text, head, tile, moved, trains, like):
    """Prefetches the rows of a tile: a long text does not fit in the cache.

    `moved` says that the tile before it, of the same head, is computed now.
    """
    n, keys, _ = list_of(a, tile)
    queries = queries_of(a, tile)
    begin = max(0, n - _NEW) if moved else 0
    end = min(n, begin + _MOST)
    _prefetch_rows(a, K, text, head, keys, begin, end, like)
    _prefetch_rows(a, V, text, head, keys, begin, end, like)
    _prefetch_rows(a, Q, text, head, queries, 0, LANES, like)
    _prefetch_rows(a, OUT, text, head, queries, 0, LANES, like)
    if trains:
        _prefetch_rows(a, DOUT, text, head, queries, 0, LANES, like)
        _prefetch_rows(a, DK, text, head, keys, begin, end, like)
        _prefetch_rows(a, DV, text, head, keys, begin, end, like)


@compiled
def _forward(a, like):
    count = LANES * (2 * a[WIDTH] + a[LONGEST] + UNROLL + 2 + a[PAIR_ROWS] + LANES + 1)
    owner, memory = _scratch(a, count, like)
    states = np.empty(LANES, np.uint32)
    hashes = pointer(states.ctypes.data, np.uint32(0))
    items = a[TEXTS] * a[CHUNKS] * a[HEADS]
    item = take_next(a)
    while item < items:
        following = take_next(a)
        text, head, chunk = _piece(a, item)
        begin, end = _chunk(a, text, head, chunk)
        for tile in range(begin, end):
            if tile + 1 < end:
                prefetch(a, text, head, tile + 1, True, False, like)
            elif following < items:
                other, another, piece = _piece(a, following)
                start, stop = _chunk(a, other, another, piece)
                if start < stop:
                    prefetch(a, other, another, start, False, False, like)
            if _few(a, tile):
                forward_single(a, text, head, tile, memory, hashes, like)
            else:
                forward_tile(a, text, head, tile, memory, hashes, like)
        item = following
    return owner.size + states.size


@compiled
def _backward(a, like):
    count = LANES * (3 * a[WIDTH] + 2 * (a[LONGEST] + UNROLL + a[PAIR_ROWS]) + 2 + LANES + 1)
    owner, memory = _scratch(a, count, like)
    states = np.empty(LANES, np.uint32)
    hashes = pointer(states.ctypes.data, np.uint32(0))
    order, starts = pointer(a[ORDER], 0), pointer(a[SHARE_STARTS], 0)
    item = take_next(a)
    while item < a[TEXTS] * a[SHARES]:
        text, share = item // a[SHARES], item % a[SHARES]
        for chunk in range(a[CHUNKS]):
            for place in range(starts[share], starts[share + 1]):
                head = order[place]
                begin, end = _chunk(a, text, head, chunk)
                for tile in range(begin, end):
                    if tile + 1 < end:
                        prefetch(a, text, head, tile + 1, True, True, like)
                    elif place + 1 < starts[share + 1]:
                        start, stop = _chunk(a, text, order[place + 1], chunk)
                        if start < stop:
                            prefetch(a, text, order[place + 1], start, False, True, like)
                    if _few(a, tile):
                        backward_single(a, text, head, tile, memory, hashes, like)
                    else:
                        backward_tile(a, text, head, tile, memory, hashes, like)
        item = take_next(a)
    return owner.size + states.size


def forward32(a):
    """Contexts and logs of the sums of exponentials, in single precision."""
    _forward(a, np.float32(0))


def forward64(a):
    """The same in double precision."""
    _forward(a, np.float64(0))


def backward32(a):
    """Gradients of queries, keys and values, in single precision."""
    _backward(a, np.float32(0))


def backward64(a):
    """The same in double precision."""
    _backward(a, np.float64(0))
