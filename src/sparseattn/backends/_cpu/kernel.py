"""The attention kernel for CPUs: forward and backward over tiles of 16 queries, for numba.

The scores of a tile are laid out keys x lanes and stay in the cache. Threads take work from a
shared counter. Dropout hashes (seed, text, head, query, key), so that the backward pass repeats it
without having stored it.
"""

# Compiled by numba, from decorators without types.
# mypy: ignore-errors

from __future__ import annotations

import math

import numpy as np

from sparseattn.backends._cpu.products import compiled, gather, mix, products, scatter, spill
from sparseattn.backends._cpu.vectors import (
    LANES,
    UNROLL,
    add,
    choose,
    divide,
    exponential,
    kept,
    larger,
    load,
    multiply,
    offset,
    pointer,
    spread,
    store,
    subtract,
    take_next,
    total,
)

__all__ = ["ARGUMENTS", "CHUNK", "backward32", "backward64", "forward32", "forward64"]

#: Tiles that a thread takes of one head before it goes on to the next. The rows of several heads
#: share memory pages: one head at a time through a long text would miss the cache.
CHUNK = 4

# The arguments are an array of int64 (counts, addresses of arrays, and for each tensor its address
# and the strides of text, head and row in numbers); these are the places in it.
(NEXT, TEXTS, HEADS, LENGTH, WIDTH, LONGEST, CHUNKS, PARTS, SEED, THRESHOLD, SIZE) = range(11)
(POISON, NUMBERS, QUERIES, STARTS, COUNTS, KEYS, BITS) = range(11, 18)
(FIRST, GROUP, ORDER, PART, LSE) = range(18, 23)
(Q, K, V, OUT, DOUT, DQ, DK, DV) = range(23, 55, 4)
ARGUMENTS = 55
# The array at NUMBERS, in the type that is computed with.
(SCALE, KEEP, ZERO, ONE, LOWEST, NOTHING) = range(6)


@compiled
def _rows(a, tensor, text, head, like):
    """The first row of a head."""
    place = text * a[tensor + 1] + head * a[tensor + 2]
    return pointer(a[tensor] + a[SIZE] * place, like)


@compiled
def _states(a, text, head, queries, states):
    """The dropout state of each lane: a hash of the seed, the text, the head and the query."""
    start = a[SEED] + (text * a[HEADS] + head) * 0x9E3779B1
    for lane in range(LANES):
        x = (np.int64(queries[lane]) * 0x632BE5AB + start) & 0xFFFFFFFF
        x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
        x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
        states[lane] = x ^ (x >> 16)


@compiled
def _softmax(scores, bits, n, numbers):
    """Turns scores into weights, not yet divided by their sums: returns maxima and sums."""
    nothing, nought = spread(numbers[NOTHING]), spread(numbers[ZERO])
    top = spread(numbers[LOWEST])
    for j in range(n):
        score = choose(np.int64(bits[j]), load(scores, j * LANES), nothing)
        store(scores, j * LANES, score)
        top = larger(score, top)
    sums = nought
    for j in range(n):
        weight = exponential(subtract(load(scores, j * LANES), top))
        weight = choose(np.int64(bits[j]), weight, nought)
        store(scores, j * LANES, weight)
        sums = add(sums, weight)
    return top, sums


@compiled
def _drop(weights, keys, n, states, threshold, nought):
    for j in range(n):
        keep = kept(states, np.int64(keys[j]), threshold)
        store(weights, j * LANES, choose(keep, load(weights, j * LANES), nought))


@compiled
def _forward_tile(a, text, head, tile, memory, states, like):
    width, numbers = a[WIDTH], pointer(a[NUMBERS], like)
    copy, columns = memory, offset(memory, LANES * width)
    sums, scores = offset(memory, 2 * LANES * width), offset(memory, 2 * LANES * (width + 1))
    begin = pointer(a[STARTS], 0)[tile]
    n = pointer(a[COUNTS], 0)[tile]
    keys = offset(pointer(a[KEYS], np.int32(0)), begin)
    bits = offset(pointer(a[BITS], np.int32(0)), begin)
    queries = offset(pointer(a[QUERIES], np.int32(0)), tile * LANES)
    gather(_rows(a, Q, text, head, like), a[Q + 3], queries, width, numbers[SCALE], copy, columns)
    products(_rows(a, K, text, head, like), a[K + 3], keys, n, columns, width, scores)
    top, divisor = _softmax(scores, bits, n, numbers)
    store(sums, 0, top)
    store(sums, LANES, divisor)
    if a[THRESHOLD] > 0:
        _states(a, text, head, queries, states)
        _drop(scores, keys, n, states, a[THRESHOLD], spread(numbers[ZERO]))
    mix(_rows(a, V, text, head, like), a[V + 3], keys, n, scores, width, columns)
    share = divide(spread(numbers[KEEP]), divisor)
    for t in range(width):
        store(columns, t * LANES, multiply(load(columns, t * LANES), share))
    spill(columns, queries, width, numbers[ONE], copy, _rows(a, OUT, text, head, like), a[OUT + 3])
    lse = pointer(a[LSE] + a[SIZE] * (text * a[HEADS] + head) * a[LENGTH], like)
    for lane in range(LANES):
        if queries[lane] >= 0:
            lse[queries[lane]] = sums[lane] + math.log(sums[LANES + lane])


@compiled
def _weigh(a, scores, back, keys, bits, n, sums, states, numbers):
    """Turns scores into weights after dropout, and `back` into gradients of the scores."""
    factor, nought = spread(numbers[KEEP]), spread(numbers[ZERO])
    lse, delta = load(sums, 0), load(sums, LANES)
    for j in range(n):
        allowed = np.int64(bits[j])
        weight = exponential(subtract(load(scores, j * LANES), lse))
        weight = choose(allowed, weight, nought)
        after, grad = weight, load(back, j * LANES)
        if a[THRESHOLD] > 0:
            keep = kept(states, np.int64(keys[j]), a[THRESHOLD])
            after = choose(keep, multiply(weight, factor), nought)
            grad = choose(keep, multiply(grad, factor), nought)
        grad = multiply(weight, subtract(grad, delta))
        store(scores, j * LANES, after)
        store(back, j * LANES, choose(allowed, grad, nought))
    for j in range(n, (n + UNROLL - 1) // UNROLL * UNROLL):
        store(scores, j * LANES, nought)
        store(back, j * LANES, nought)


@compiled
def _delta(a, text, head, queries, sums, like):
    """Per lane the log of the sum of exponentials, and context . its gradient."""
    numbers = pointer(a[NUMBERS], like)
    lse = pointer(a[LSE] + a[SIZE] * (text * a[HEADS] + head) * a[LENGTH], like)
    out, grad = _rows(a, OUT, text, head, like), _rows(a, DOUT, text, head, like)
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
def _backward_tile(a, text, head, tile, memory, states, like):
    width, numbers = a[WIDTH], pointer(a[NUMBERS], like)
    size = LANES * width
    q, columns, grads = memory, offset(memory, size), offset(memory, 2 * size)
    sums, scores = offset(memory, 3 * size), offset(memory, 3 * size + 2 * LANES)
    begin = pointer(a[STARTS], 0)[tile]
    n = pointer(a[COUNTS], 0)[tile]
    back = offset(scores, (n + UNROLL) * LANES)
    keys = offset(pointer(a[KEYS], np.int32(0)), begin)
    bits = offset(pointer(a[BITS], np.int32(0)), begin)
    queries = offset(pointer(a[QUERIES], np.int32(0)), tile * LANES)
    key = _rows(a, K, text, head, like)
    gather(_rows(a, Q, text, head, like), a[Q + 3], queries, width, numbers[SCALE], q, columns)
    products(key, a[K + 3], keys, n, columns, width, scores)
    one = numbers[ONE]
    gather(_rows(a, DOUT, text, head, like), a[DOUT + 3], queries, width, one, grads, columns)
    products(_rows(a, V, text, head, like), a[V + 3], keys, n, columns, width, back)
    _delta(a, text, head, queries, sums, like)
    if a[THRESHOLD] > 0:
        _states(a, text, head, queries, states)
    _weigh(a, scores, back, keys, bits, n, sums, states, numbers)
    scatter(scores, keys, n, grads, width, _rows(a, DV, text, head, like), a[DV + 3])
    scatter(back, keys, n, q, width, _rows(a, DK, text, head, like), a[DK + 3])
    mix(key, a[K + 3], keys, n, back, width, columns)
    target = _rows(a, DQ, text, head, like)
    spill(columns, queries, width, numbers[SCALE], grads, target, a[DQ + 3])


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
def _forward(a, like):
    count = LANES * (2 * a[WIDTH] + a[LONGEST] + UNROLL + 2)
    owner, memory = _scratch(a, count, like)
    states = np.empty(LANES, np.uint32)
    hashes = pointer(states.ctypes.data, np.uint32(0))
    first, group = pointer(a[FIRST], 0), pointer(a[GROUP], 0)
    items = a[TEXTS] * a[CHUNKS] * a[HEADS]
    item = take_next(a)
    while item < items:
        piece, head = item // a[HEADS], item % a[HEADS]
        text, chunk = piece // a[CHUNKS], piece % a[CHUNKS]
        mine = 2 * (group[head] * a[TEXTS] + text)
        begin = first[mine] + chunk * CHUNK
        for tile in range(begin, min(begin + CHUNK, first[mine + 1])):
            _forward_tile(a, text, head, tile, memory, hashes, like)
        item = take_next(a)
    return owner.size + states.size


@compiled
def _backward(a, like):
    count = LANES * (3 * a[WIDTH] + 2 * (a[LONGEST] + UNROLL) + 2)
    owner, memory = _scratch(a, count, like)
    states = np.empty(LANES, np.uint32)
    hashes = pointer(states.ctypes.data, np.uint32(0))
    first, group = pointer(a[FIRST], 0), pointer(a[GROUP], 0)
    order, part = pointer(a[ORDER], 0), pointer(a[PART], 0)
    item = take_next(a)
    while item < a[TEXTS] * a[PARTS]:
        text, mine = item // a[PARTS], item % a[PARTS]
        for chunk in range(a[CHUNKS]):
            for place in range(part[mine], part[mine + 1]):
                head = order[place]
                at = 2 * (group[head] * a[TEXTS] + text)
                begin = first[at] + chunk * CHUNK
                for tile in range(begin, min(begin + CHUNK, first[at + 1])):
                    _backward_tile(a, text, head, tile, memory, hashes, like)
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
