"""The matrix products of attention over one tile, and the blocks of vectors they are made of.

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
from numba.core import cgutils, config, types
from numba.extending import intrinsic

from sparseattn.backends.kernels.cpu.vectors import (
    LANES,
    Vector,
    add,
    broadcast,
    compiled,
    constant,
    fused,
    load,
    multiply,
    offset,
    read,
    spread,
    store,
    transpose,
)

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
def load_each(context, p, index, blocks):
    """A vector for each block, one behind the other from `p[index]` on."""
    vectors = types.UniTuple(Vector(p.dtype), blocks.count)

    def emit(ctx, b, _sig, args):
        kind = ctx.get_value_type(vectors.dtype)
        places = [b.add(args[1], ir.Constant(_I64, i * LANES)) for i in range(vectors.count)]
        return ctx.make_tuple(b, vectors, [read(b, args[0], place, kind) for place in places])

    return vectors(p, types.int64, blocks), emit


@intrinsic
def multiply_add(context, p, places, shift, vectors, blocks):
    """The blocks, each plus its own of `vectors` times the numbers `p[places[i] + shift]`.

    Each number is loaded once and used for all blocks.
    """

    def emit(ctx, b, _sig, args):
        numbers = []
        for place in cgutils.unpack_tuple(b, args[1]):
            number = b.load(b.gep(args[0], [b.add(place, args[2])]))
            numbers.append(broadcast(b, number))
        sums = []
        pairs = zip(cgutils.unpack_tuple(b, args[3]), cgutils.unpack_tuple(b, args[4]), strict=True)
        for vector, block in pairs:
            totals = cgutils.unpack_tuple(b, block)
            added = [fused(b, n, vector, t) for n, t in zip(numbers, totals, strict=True)]
            sums.append(ctx.make_tuple(b, blocks.dtype, added))
        return ctx.make_tuple(b, blocks, sums)

    return blocks(p, places, types.int64, vectors, blocks), emit


@compiled
def products(rows, stride, keys, n, columns, width, scores):
    """Multiplies rows: scores[j] = rows[keys[j]] . columns, lane by lane."""
    for j in range(0, n, UNROLL):
        places = places_of(keys, j, n, stride)
        blocks = (zeros(columns),)
        for t in range(width):
            blocks = multiply_add(rows, places, t, load_each(columns, t * LANES, blocks), blocks)
        for i in range(UNROLL):
            store(scores, (j + i) * LANES, blocks[0][i])


@compiled
def _weighted_sum(rows, stride, keys, n, weights, lane, t, width, tile, blocks):
    places = steps(lane, 1)
    for j in range(n):
        vectors = load_each(rows, keys[j] * stride + t, blocks)
        blocks = multiply_add(weights, places, j * LANES, vectors, blocks)
    for i in range(UNROLL):
        for m in range(len(blocks)):
            store(tile, (lane + i) * width + t + m * LANES, blocks[m][i])


@compiled
def weighted_sum(rows, stride, keys, n, weights, width, tile):
    """Adds rows up: tile[lane] = sum of weights[j, lane] rows[keys[j]]."""
    block = zeros(rows)
    paired = width // (2 * LANES) * (2 * LANES) if PAIRS else 0
    for lane in range(0, LANES, UNROLL):
        for t in range(0, paired, 2 * LANES):
            _weighted_sum(rows, stride, keys, n, weights, lane, t, width, tile, (block, block))
        for t in range(paired, width, LANES):
            _weighted_sum(rows, stride, keys, n, weights, lane, t, width, tile, (block,))


@compiled
def _scatter(weights, j, n, tile, width, t, rows, to, blocks):
    places = steps(j * LANES, LANES)
    for lane in range(LANES):
        vectors = load_each(tile, lane * width + t, blocks)
        blocks = multiply_add(weights, places, lane, vectors, blocks)
    for i in range(min(UNROLL, n - j)):
        for m in range(len(blocks)):
            at = to[i] + t + m * LANES
            store(rows, at, add(load(rows, at), blocks[m][i]))


@compiled
def scatter(weights, keys, n, tile, width, rows, stride):
    """Adds to rows: rows[keys[j]] += sum over lanes of weights[j, lane] tile[lane]."""
    block = zeros(tile)
    paired = width // (2 * LANES) * (2 * LANES) if PAIRS else 0
    for j in range(0, n, UNROLL):
        to = places_of(keys, j, n, stride)
        for t in range(0, paired, 2 * LANES):
            _scatter(weights, j, n, tile, width, t, rows, to, (block, block))
        for t in range(paired, width, LANES):
            _scatter(weights, j, n, tile, width, t, rows, to, (block,))


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
