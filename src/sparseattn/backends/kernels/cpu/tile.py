"""Attention of one tile of 16 queries, a lane each, over the list of its keys.

The scores of a tile are laid out keys x lanes and stay in the cache. Dropout hashes (seed, text,
head, query, key), so that the backward pass repeats it without having stored it.
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
    NOTHING,
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
    pairs_of,
    queries_of,
    seeds,
)
from sparseattn.backends.kernels.cpu.bias import add_bias
from sparseattn.backends.kernels.cpu.products import (
    UNROLL,
    gather,
    products,
    scatter,
    store_rows,
    weighted_sum,
)
from sparseattn.backends.kernels.cpu.scattered import (
    add_pairs,
    drop_pairs,
    pair_products,
    rows_of,
    scatter_pairs,
)
from sparseattn.backends.kernels.cpu.vectors import (
    LANES,
    add,
    choose,
    compiled,
    divide,
    exponential,
    keep_lanes,
    larger,
    load,
    multiply,
    offset,
    pointer,
    spread,
    store,
    subtract,
    total,
)


@compiled
def _fill(rows, n, number):
    for j in range(n):
        store(rows, j * LANES, spread(number))


@compiled
def _softmax(scores, bits, n, own, rows, numbers):
    """Turns scores into weights, not yet divided by their sums: returns maxima and sums.

    `own` are the rows of scattered pairs. Where there is none the score is the lowest, and what its
    exponential adds to a sum is too small to change it.
    """
    nothing, nought = spread(numbers[NOTHING]), spread(numbers[ZERO])
    top = spread(numbers[LOWEST])
    for j in range(n):
        score = choose(np.int64(bits[j]), load(scores, j * LANES), nothing)
        store(scores, j * LANES, score)
        top = larger(score, top)
    for j in range(rows):
        top = larger(load(own, j * LANES), top)
    sums = nought
    for j in range(n):
        weight = exponential(subtract(load(scores, j * LANES), top))
        weight = choose(np.int64(bits[j]), weight, nought)
        store(scores, j * LANES, weight)
        sums = add(sums, weight)
    for j in range(rows):
        weight = exponential(subtract(load(own, j * LANES), top))
        store(own, j * LANES, weight)
        sums = add(sums, weight)
    return top, sums


@compiled
def _drop(weights, keys, n, states, threshold, nought):
    for j in range(n):
        keep = keep_lanes(states, np.int64(keys[j]), threshold)
        store(weights, j * LANES, choose(keep, load(weights, j * LANES), nought))


@compiled
def forward_tile(a, text, head, tile, memory, states, like):
    """Contexts and logs of the sums of exponentials of a tile's queries."""
    width, numbers = a[WIDTH], pointer(a[NUMBERS], like)
    copy, columns = memory, offset(memory, LANES * width)
    sums, scores = offset(memory, 2 * LANES * width), offset(memory, 2 * LANES * (width + 1))
    n, keys, bits = list_of(a, tile)
    queries, pairs = queries_of(a, tile), pairs_of(a, tile)
    rows, own = rows_of(pairs), offset(scores, (n + UNROLL) * LANES)
    query, key = head_rows(a, Q, text, head, like), head_rows(a, K, text, head, like)
    gather(query, a[Q + 3], queries, width, numbers[SCALE], copy, columns)
    products(key, a[K + 3], keys, n, columns, width, scores)
    _fill(own, rows, numbers[LOWEST])
    pair_products(key, a[K + 3], pairs, copy, width, offset(own, rows * LANES), own)
    add_bias(a, text, head, queries, keys, n, scores, pairs, own, False, like)
    top, divisor = _softmax(scores, bits, n, own, rows, numbers)
    store(sums, 0, top)
    store(sums, LANES, divisor)
    if a[THRESHOLD] > 0:
        seeds(a, text, head, queries, states)
        _drop(scores, keys, n, states, a[THRESHOLD], spread(numbers[ZERO]))
        drop_pairs(own, pairs, states, a[THRESHOLD], numbers[ONE], numbers[ZERO])
    value = head_rows(a, V, text, head, like)
    weighted_sum(value, a[V + 3], keys, n, scores, width, copy)
    add_pairs(value, a[V + 3], pairs, own, width, copy)
    lse = head_rows(a, LSE, text, head, like)
    for lane in range(LANES):
        if queries[lane] >= 0:
            lse[queries[lane]] = sums[lane] + math.log(sums[LANES + lane])
    store(sums, 0, divide(spread(numbers[KEEP]), divisor))
    store_rows(copy, queries, width, sums, head_rows(a, OUT, text, head, like), a[OUT + 3])


@compiled
def _score_gradients(a, scores, back, keys, bits, n, sums, states, numbers):
    """Turns scores into weights after dropout, and `back` into gradients of the scores."""
    factor, nought = spread(numbers[KEEP]), spread(numbers[ZERO])
    lse, delta = load(sums, 0), load(sums, LANES)
    for j in range(n):
        allowed = np.int64(bits[j])
        weight = exponential(subtract(load(scores, j * LANES), lse))
        weight = choose(allowed, weight, nought)
        after, grad = weight, load(back, j * LANES)
        if a[THRESHOLD] > 0:
            keep = keep_lanes(states, np.int64(keys[j]), a[THRESHOLD])
            after = choose(keep, multiply(weight, factor), nought)
            grad = choose(keep, multiply(grad, factor), nought)
        grad = multiply(weight, subtract(grad, delta))
        store(scores, j * LANES, after)
        store(back, j * LANES, choose(allowed, grad, nought))
    for j in range(n, (n + UNROLL - 1) // UNROLL * UNROLL):
        store(scores, j * LANES, nought)
        store(back, j * LANES, nought)


@compiled
def _pair_gradients(a, own, back, pairs, rows, sums, states, numbers):
    """`_score_gradients` of scattered pairs."""
    lse, delta = load(sums, 0), load(sums, LANES)
    if a[THRESHOLD] > 0:
        drop_pairs(back, pairs, states, a[THRESHOLD], numbers[KEEP], numbers[ZERO])
    for j in range(rows):
        weight = exponential(subtract(load(own, j * LANES), lse))
        store(own, j * LANES, weight)
        store(back, j * LANES, multiply(weight, subtract(load(back, j * LANES), delta)))
    if a[THRESHOLD] > 0:
        drop_pairs(own, pairs, states, a[THRESHOLD], numbers[KEEP], numbers[ZERO])


@compiled
def _delta(a, text, head, queries, sums, like):
    """Per lane the log of the sum of exponentials, and context . its gradient."""
    numbers = pointer(a[NUMBERS], like)
    lse = head_rows(a, LSE, text, head, like)
    out, grad = head_rows(a, OUT, text, head, like), head_rows(a, DOUT, text, head, like)
    for lane in range(LANES):
        row = np.int64(queries[lane])
        dot = spread(numbers[ZERO])
        sums[lane] = numbers[ZERO]
        if row >= 0:
            sums[lane] = lse[row]
            for t in range(0, a[WIDTH], LANES):
                x = load(out, row * a[OUT + 3] + t)
                dot = add(dot, multiply(x, load(grad, row * a[DOUT + 3] + t)))
        sums[LANES + lane] = total(dot)


@compiled
def backward_tile(a, text, head, tile, memory, states, like):
    """Gradients of a tile's queries, and its share of those of keys and values."""
    width, numbers = a[WIDTH], pointer(a[NUMBERS], like)
    size = LANES * width
    q, columns, grads = memory, offset(memory, size), offset(memory, 2 * size)
    sums, scores = offset(memory, 3 * size), offset(memory, 3 * size + 2 * LANES)
    n, keys, bits = list_of(a, tile)
    queries, pairs = queries_of(a, tile), pairs_of(a, tile)
    back = offset(scores, (n + UNROLL) * LANES)
    rows, own = rows_of(pairs), offset(back, (n + UNROLL) * LANES)
    own_back = offset(own, rows * LANES)
    rest = offset(own_back, rows * LANES)
    key, value = head_rows(a, K, text, head, like), head_rows(a, V, text, head, like)
    gather(head_rows(a, Q, text, head, like), a[Q + 3], queries, width, numbers[SCALE], q, columns)
    products(key, a[K + 3], keys, n, columns, width, scores)
    one = numbers[ONE]
    gather(head_rows(a, DOUT, text, head, like), a[DOUT + 3], queries, width, one, grads, columns)
    products(value, a[V + 3], keys, n, columns, width, back)
    _fill(own, rows, numbers[LOWEST])
    _fill(own_back, rows, numbers[ZERO])
    pair_products(key, a[K + 3], pairs, q, width, rest, own)
    add_bias(a, text, head, queries, keys, n, scores, pairs, own, False, like)
    pair_products(value, a[V + 3], pairs, grads, width, rest, own_back)
    _delta(a, text, head, queries, sums, like)
    if a[THRESHOLD] > 0:
        seeds(a, text, head, queries, states)
    _score_gradients(a, scores, back, keys, bits, n, sums, states, numbers)
    _pair_gradients(a, own, own_back, pairs, rows, sums, states, numbers)
    add_bias(a, text, head, queries, keys, n, back, pairs, own_back, True, like)
    value_grad, key_grad = head_rows(a, DV, text, head, like), head_rows(a, DK, text, head, like)
    scatter(scores, keys, n, grads, width, value_grad, a[DV + 3])
    scatter_pairs(own, pairs, grads, width, value_grad, a[DV + 3])
    scatter(back, keys, n, q, width, key_grad, a[DK + 3])
    scatter_pairs(own_back, pairs, q, width, key_grad, a[DK + 3])
    weighted_sum(key, a[K + 3], keys, n, back, width, columns)
    add_pairs(key, a[K + 3], pairs, own_back, width, columns)
    store(sums, 0, spread(numbers[SCALE]))
    store_rows(columns, queries, width, sums, head_rows(a, DQ, text, head, like), a[DQ + 3])
