"""Vectors of 16 lanes for numba: a type and the few operations that the attention kernel needs.

A lane holds a query, so that a softmax needs no sum across lanes. LLVM turns each operation into
what the processor has: one AVX-512 instruction, two of AVX2, four of NEON.
"""

# Decorators without types, and arguments that only their types matter of.
# mypy: ignore-errors
# ruff: noqa: ARG001

from __future__ import annotations

from math import factorial

from llvmlite import ir
from numba import njit
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

#: Queries a vector; bits of a lane mask.
LANES = 16

compiled = njit(fastmath={"contract", "nsz"}, error_model="numpy", boundscheck=False)

_I1, _I16, _I32, _I64 = (ir.IntType(n) for n in (1, 16, 32, 64))
#: exp(r) on |r| <= log(2) / 2, highest power first. Single precision: Cephes expf.
_EXP = {
    "float": (
        *(1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1),
        *(0.5, 1.0, 1.0),
    ),
    "double": tuple(1 / factorial(power) for power in range(14, -1, -1)),
}
#: The lowest argument, log(2) in two parts, the shift that rounds, the bits of the mantissa.
_RANGE = {
    "float": (-87.0, 0.693359375, -2.12194440e-4, 12582912.0, 23),
    "double": (-700.0, 6.93145751953125e-1, 1.42860682030941723212e-6, 6755399441055744.0, 52),
}


class Vector(types.Type):
    """Sixteen numbers of one type."""

    def __init__(self, number):
        self.number = number
        super().__init__(name=f"Vector{LANES}({number})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        number = manager.lookup(kind.number).get_value_type()
        super().__init__(manager, kind, ir.VectorType(number, LANES))


def constant(value, kind):
    """A vector of one known number."""
    return ir.Constant(kind, [value] * LANES)


def broadcast(b, scalar):
    """A vector of one number that is computed."""
    kind = ir.VectorType(scalar.type, LANES)
    blank = ir.Constant(kind, ir.Undefined)
    first = b.insert_element(blank, scalar, ir.Constant(_I32, 0))
    zeros = ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES)
    return b.shuffle_vector(first, blank, zeros)


def fused(b, x, y, z):
    """`x * y + z`, rounded once."""
    name = f"llvm.fma.v{LANES}{'f32' if x.type.element == ir.FloatType() else 'f64'}"
    kind = ir.FunctionType(x.type, [x.type] * 3)
    return b.call(cgutils.get_or_insert_function(b.module, kind, name), (x, y, z))


def _lanes(b, bits):
    return b.bitcast(b.trunc(bits, _I16), ir.VectorType(_I1, LANES))


def read(b, p, index, kind):
    """A vector from `p[index]` on, aligned as one of its numbers is."""
    value = b.load(b.bitcast(b.gep(p, [index]), kind.as_pointer()))
    value.align = 4
    return value


def _write(b, vector, p, index):
    place = b.bitcast(b.gep(p, [index]), vector.type.as_pointer())
    b.store(vector, place).align = 4


@intrinsic
def pointer(context, address, like):
    """The address as a pointer to numbers of the type of `like`."""
    kind = types.CPointer(like)

    def emit(ctx, b, _sig, args):
        return b.inttoptr(args[0], ctx.get_value_type(kind))

    return kind(types.int64, like), emit


@intrinsic
def offset(context, p, index):
    """The pointer `index` numbers further on."""
    return p(p, types.int64), lambda _ctx, b, _sig, args: b.gep(args[0], [args[1]])


@intrinsic
def take_next(context, p):
    """Adds one to the counter under a pointer, atomically, and returns what it was."""

    def emit(_ctx, b, _sig, args):
        return b.atomic_rmw("add", args[0], ir.Constant(_I64, 1), "monotonic")

    return types.int64(p), emit


@intrinsic
def fetch(context, p, index):
    """Asks for the line of memory around `p[index]`, without waiting; any address will do."""

    def emit(ctx, b, _sig, args):
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0i8")
        # To be read, into every level of the cache, data rather than code.
        how = [ir.Constant(_I32, n) for n in (0, 3, 1)]
        b.call(function, [b.bitcast(b.gep(args[0], [args[1]]), byte), *how])
        return ctx.get_dummy_value()

    return types.void(p, types.int64), emit


@intrinsic
def load(context, p, index):
    """Sixteen numbers from `p[index]` on."""
    kind = Vector(p.dtype)

    def emit(ctx, b, _sig, args):
        return read(b, *args, ctx.get_value_type(kind))

    return kind(p, types.int64), emit


@intrinsic
def store(context, p, index, vector):
    """Writes a vector to `p[index]` and on."""

    def emit(ctx, b, _sig, args):
        _write(b, args[2], *args[:2])
        return ctx.get_dummy_value()

    return types.void(p, types.int64, vector), emit


@intrinsic
def spread(context, scalar):
    """A vector of one number."""
    return Vector(scalar)(scalar), lambda _ctx, b, _sig, args: broadcast(b, args[0])


def _binary(name):
    @intrinsic
    def operation(context, x, y):
        return x(x, y), lambda _ctx, b, _sig, args: getattr(b, name)(*args)

    return operation


add, subtract, multiply, divide = (_binary(name) for name in ("fadd", "fsub", "fmul", "fdiv"))


@intrinsic
def fuse(context, x, y, z):
    """`x * y + z`, rounded once."""
    return x(x, y, z), lambda _ctx, b, _sig, args: fused(b, *args)


@intrinsic
def larger(context, x, y):
    """The larger of two vectors, lane by lane."""

    def emit(_ctx, b, _sig, args):
        return b.select(b.fcmp_ordered(">", *args), *args)

    return x(x, y), emit


@intrinsic
def total(context, vector):
    """The sum of the lanes."""

    def emit(_ctx, b, _sig, args):
        (value,) = args
        for half in (8, 4, 2, 1):
            order = [(lane + half) % LANES for lane in range(LANES)]
            turned = b.shuffle_vector(value, value, ir.Constant(ir.VectorType(_I32, LANES), order))
            value = b.fadd(value, turned)
        return b.extract_element(value, ir.Constant(_I32, 0))

    return vector.number(vector), emit


@intrinsic
def totals(context, source, target):
    """The sums of sixteen vectors that lie one after the other, side by side."""

    def emit(ctx, b, _sig, args):
        kind = ctx.get_value_type(Vector(source.dtype))
        rows = [read(b, args[0], ir.Constant(_I64, i * LANES), kind) for i in range(LANES)]
        for half in (8, 4, 2, 1):
            # Two vectors become one: lanes with the bit `half` hold sums of the second one.
            low = [lane if not lane & half else LANES + lane - half for lane in range(LANES)]
            high = [lane + half if not lane & half else LANES + lane for lane in range(LANES)]
            orders = [ir.Constant(ir.VectorType(_I32, LANES), order) for order in (low, high)]
            pairs = zip(rows[:half], rows[half:], strict=True)
            rows = [b.fadd(*(b.shuffle_vector(*pair, order) for order in orders)) for pair in pairs]
        _write(b, rows[0], args[1], ir.Constant(_I64, 0))
        return ctx.get_dummy_value()

    return types.void(source, target), emit


@intrinsic
def transpose(context, source, source_stride, target, target_stride):
    """Copies a 16 x 16 block of numbers, turning rows into columns (Eklundh's algorithm)."""

    def emit(ctx, b, _sig, args):
        kind = ctx.get_value_type(Vector(source.dtype))
        places = [ir.Constant(_I64, i) for i in range(LANES)]
        rows = [read(b, args[0], b.mul(args[1], place), kind) for place in places]
        for step in (8, 4, 2, 1):
            for i in (i for i in range(LANES) if not i & step):
                pair = rows[i], rows[i + step]
                for j, lift in ((i, 0), (i + step, step)):
                    # A lane of the second vector counts from 16 on.
                    order = [
                        LANES + lane - step + lift if lane & step else lane + lift
                        for lane in range(LANES)
                    ]
                    mask = ir.Constant(ir.VectorType(_I32, LANES), order)
                    rows[j] = b.shuffle_vector(*pair, mask)
        for row, place in zip(rows, places, strict=True):
            _write(b, row, args[2], b.mul(args[3], place))
        return ctx.get_dummy_value()

    return types.void(source, types.int64, target, types.int64), emit


@intrinsic
def choose(context, bits, x, y):
    """The lanes of `x` whose bit is set and the lanes of `y` whose bit is not."""

    def emit(_ctx, b, _sig, args):
        return b.select(_lanes(b, args[0]), args[1], args[2])

    return x(types.int64, x, x), emit


@intrinsic
def exponential(context, x):
    """exp(x) for x <= 0; what would be denormal is as small as a normal number gets."""

    def emit(_ctx, b, _sig, args):
        (value,), kind = args, args[0].type
        lowest, high, low, shift, mantissa = _RANGE[str(kind.element)]
        whole = ir.VectorType(_I32 if mantissa == 23 else _I64, LANES)
        # Ordered: a NaN is not below the lowest and stays one.
        tiny = b.fcmp_ordered("<", value, constant(lowest, kind))
        value = b.select(tiny, constant(lowest, kind), value)
        shifted = fused(b, value, constant(1.4426950408889634, kind), constant(shift, kind))
        power = b.fsub(shifted, constant(shift, kind))
        rest = fused(b, power, constant(-high, kind), value)
        rest = fused(b, power, constant(-low, kind), rest)
        result = constant(_EXP[str(kind.element)][0], kind)
        for coefficient in _EXP[str(kind.element)][1:]:
            result = fused(b, result, rest, constant(coefficient, kind))
        scale = b.shl(b.bitcast(shifted, whole), constant(mantissa, whole))
        return b.bitcast(b.add(b.bitcast(result, whole), scale), kind)

    return x(x), emit


@intrinsic
def keep_lanes(context, states, key, threshold):
    """Bits of the lanes whose hash of state and key is at least the threshold.

    The hash is `lowbias32` (C. Wellons, "Prospecting for hash functions", 2018): two rounds of
    multiply and shift, in which every input bit changes each output bit with a chance near 1/2.
    """
    kind = ir.VectorType(_I32, LANES)

    def emit(_ctx, b, _sig, args):
        x = b.load(b.bitcast(args[0], kind.as_pointer()))
        x.align = 4
        golden = b.mul(b.trunc(args[1], _I32), ir.Constant(_I32, 0x9E3779B9))
        x = b.xor(x, broadcast(b, golden))
        for right, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            x = b.xor(x, b.lshr(x, constant(right, kind)))
            x = b.mul(x, constant(factor, kind))
        x = b.xor(x, b.lshr(x, constant(16, kind)))
        keep = b.icmp_unsigned(">=", x, broadcast(b, b.trunc(args[2], _I32)))
        return b.zext(b.bitcast(keep, _I16), _I64)

    return types.int64(states, types.int64, types.int64), emit


@compiled
def hashed(x):
    """`lowbias32` of one number of 32 bits; see `keep_lanes`."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)
