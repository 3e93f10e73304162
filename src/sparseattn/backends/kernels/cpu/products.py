"""The matrix products of attention over one tile, and the blocks of vectors they are block of.

A block of vectors stays in registers through a loop, as a fast product needs. How many vectors it
has depends on how many registers the processor has, and of what size.
"""

# Compiled by numba, from decorators without types, and arguments that only their types matter of.
# mypy: ignore-errors
# ruff: noqa: ARG001

from __future__ import annotations

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features, get_host_cpu_name
from numba import njit
from numba.core import cgutils, config, types
from numba.extending import intrinsic

from sparseattn.backends.kernels.cpu.vectors import (
    LANES,
    Vector,
    add,
    broadcast,
    constant,
    fused,
    load,
    multiply,
    offset,
    spread,
    store,
    transpose,
)

compiled = njit(fastmath={"contract", "nsz"}, error_model="numpy", boundscheck=False)

_I64 = ir.IntType(64)


def _wide():
    """Whether numba compiles for AVX-512."""
    features = config.CPU_FEATURES
    if features is None and config.CPU_NAME in (None, get_host_cpu_name()):
        features = get_host_cpu_features().flatten()
    return "+avx512f" in (features or "").split(",")


#: Whether there are 32 registers of sixteen numbers each, enough for two blocks at a time. AVX2 has
#: 16 of eight, and half a block fills half of them.
PAIRS = _wide()
#: Vectors a block.
UNROLL = 8 if PAIRS else 4


@intrinsic
def zeros(context, p):
    """A block of zeros of the type under a pointer."""
    block = types.UniTuple(Vector(p.dtype), UNROLL)

    def emit(ctx, b, _sig, _args):
        kind = ctx.get_value_type(block.dtype)
        return ctx.make_tuple(b, block, [constant(0.0, kind)] * UNROLL)

    return block(p), emit


@intrinsic
def steps(context, at, by):
    """Places of a block, `by` apart."""
    block = types.UniTuple(types.int64, UNROLL)

    def emit(ctx, b, _sig, args):
        far = [b.mul(args[1], ir.Constant(_I64, i)) for i in range(UNROLL)]
        return ctx.make_tuple(b, block, [b.add(args[0], step) for step in far])

    return block(types.int64, types.int64), emit


@intrinsic
def places_of(context, keys, j, n, stride):
    """Places of a block of rows, those of the keys from `j` on; beyond the last it is repeated."""
    block = types.UniTuple(types.int64, UNROLL)

    def emit(ctx, b, _sig, args):
        last, places = b.sub(args[2], ir.Constant(_I64, 1)), []
        for i in range(UNROLL):
            index = b.add(args[1], ir.Constant(_I64, i))
            index = b.select(b.icmp_signed("<", index, last), index, last)
            key = b.sext(b.load(b.gep(args[0], [index])), _I64)
            places.append(b.mul(key, args[3]))
        return ctx.make_tuple(b, block, places)

    return block(keys, types.int64, types.int64, types.int64), emit


@intrinsic
def multiply_add_both(context, p, places, shift, left, right, pair):
    """`multiply_add` of two vectors for two blocks: each number is loaded once and used twice."""

    def emit(ctx, b, _sig, args):
        numbers = []
        for place in cgutils.unpack_tuple(b, args[1]):
            number = b.load(b.gep(args[0], [b.add(place, args[2])]))
            numbers.append(broadcast(b, number))
        blocks = []
        for vector, block in zip(args[3:5], cgutils.unpack_tuple(b, args[5]), strict=True):
            totals = cgutils.unpack_tuple(b, block)
            sums = [fused(b, n, vector, t) for n, t in zip(numbers, totals, strict=True)]
            blocks.append(ctx.make_tuple(b, pair.dtype, sums))
        return ctx.make_tuple(b, pair, blocks)

    return pair(p, places, types.int64, left, right, pair), emit


@intrinsic
def multiply_add(context, p, places, shift, vector, block):
    """The block, each vector plus `vector` times its own number `p[places[i] + shift]`."""

    def emit(ctx, b, _sig, args):
        sums = []
        pairs = zip(cgutils.unpack_tuple(b, args[1]), cgutils.unpack_tuple(b, args[4]), strict=True)
        for place, total in pairs:
            number = b.load(b.gep(args[0], [b.add(place, args[2])]))
            sums.append(fused(b, broadcast(b, number), args[3], total))
        return ctx.make_tuple(b, block, sums)

    return block(p, places, types.int64, vector, block), emit


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
    """Adds rows up: tile[lane] = sum of weights[j, lane] rows[keys[j]]."""
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
