"""Blocks of vectors for numba: they stay in registers through a loop, as a fast product needs.

How many vectors a block has depends on how many registers the processor has, and of what size.
"""

# Decorators without types, and arguments that only their types matter of.
# mypy: ignore-errors
# ruff: noqa: ARG001

from __future__ import annotations

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features, get_host_cpu_name
from numba.core import cgutils, config, types
from numba.extending import intrinsic

from sparseattn.backends.kernels.cpu.vectors import Vector, broadcast, constant, fused

__all__ = ["PAIRS", "UNROLL"]

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
    made = types.UniTuple(Vector(p.dtype), UNROLL)

    def emit(ctx, b, _sig, _args):
        kind = ctx.get_value_type(made.dtype)
        return ctx.make_tuple(b, made, [constant(0.0, kind)] * UNROLL)

    return made(p), emit


@intrinsic
def steps(context, at, by):
    """Places of a block, `by` apart."""
    made = types.UniTuple(types.int64, UNROLL)

    def emit(ctx, b, _sig, args):
        far = [b.mul(args[1], ir.Constant(_I64, i)) for i in range(UNROLL)]
        return ctx.make_tuple(b, made, [b.add(args[0], step) for step in far])

    return made(types.int64, types.int64), emit


@intrinsic
def places_of(context, keys, j, n, stride):
    """Places of a block of rows, those of the keys from `j` on; beyond the last it is repeated."""
    made = types.UniTuple(types.int64, UNROLL)

    def emit(ctx, b, _sig, args):
        last, found = b.sub(args[2], ir.Constant(_I64, 1)), []
        for i in range(UNROLL):
            wanted = b.add(args[1], ir.Constant(_I64, i))
            wanted = b.select(b.icmp_signed("<", wanted, last), wanted, last)
            key = b.sext(b.load(b.gep(args[0], [wanted])), _I64)
            found.append(b.mul(key, args[3]))
        return ctx.make_tuple(b, made, found)

    return made(keys, types.int64, types.int64, types.int64), emit


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
