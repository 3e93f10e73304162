"""Asking for the rows of the next tile while one is computed: a long text is not in the cache."""

# Compiled by numba, from decorators without types.
# mypy: ignore-errors

from __future__ import annotations

from sparseattn.backends.kernels.cpu.arguments import (
    DK,
    DOUT,
    DV,
    OUT,
    SIZE,
    WIDTH,
    K,
    Q,
    V,
    head_rows,
    list_of,
    queries_of,
)
from sparseattn.backends.kernels.cpu.products import compiled
from sparseattn.backends.kernels.cpu.vectors import LANES, fetch

__all__ = ["prefetch"]

#: Rows of a list that are asked for at most: more would push out what is in use.
_MOST = 512
#: Rows at the end of a list that the tile before it is taken not to have: a window moves on by
#: sixteen, and global tokens stand behind it.
_NEW = LANES + 8
#: Bytes of a line of the cache.
_LINE = 64


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
    """Asks for the rows of a tile.

    Args:
        a: The arguments.
        text: Its text.
        head: Its head.
        tile: The tile.
        moved: Whether the tile before it, of the same head, is computed now.
        trains: Whether it is the backward pass.
        like: A number of the type that is computed with.
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
