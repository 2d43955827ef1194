"""Sixteen numbers as one value: what a processor's vector unit does, spelled out for the compiler.

Two kinds: Bytes (16 x uint8), as pixels are stored, and Sums (16 x int32), to calculate in. LLVM
maps them to the registers that the machine has (SSE, AVX2, AVX-512, NEON), so nothing depends on
what its vectoriser makes of a loop, and no loop has a remainder: the kernels see to it that sixteen
numbers can be read and written wherever they do. Under NUMBA_BOUNDSCHECK=1 that is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import config, types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

COUNT = 16


class Lanes(types.Type):
    """Sixteen integers of `bits` bits."""

    def __init__(self, name: str, bits: int) -> None:
        super().__init__(name=name)
        self.vector = ir.VectorType(ir.IntType(bits), COUNT)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, lanes.vector)


BYTES, SUMS = Lanes("Bytes", 8), Lanes("Sums", 32)


def _order(indices: list[int]) -> Any:
    return ir.Constant(ir.VectorType(ir.IntType(32), COUNT), indices)


def _all(builder: Any, number: Any) -> Any:
    """Sums of sixteen times the int32."""
    undefined = ir.Constant(SUMS.vector, ir.Undefined)
    one = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, _order([0] * COUNT))


def _constant(number: int) -> Any:
    return ir.Constant(SUMS.vector, [number] * COUNT)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, at: Any, count: int) -> Any:
    """Pointer to array[at], from where on `count` items must lie within the array."""
    fields = context.make_array(array_type)(context, builder, array)
    if config.BOUNDSCHECK:
        outside = builder.or_(
            builder.icmp_signed("<", at, ir.Constant(at.type, 0)),
            builder.icmp_signed(">", builder.add(at, ir.Constant(at.type, count)), fields.nitems),
        )
        with builder.if_then(outside, likely=False):
            context.call_conv.return_user_exc(builder, IndexError, ("lanes outside the array",))
    return builder.gep(fields.data, [at])


def _bytes_at(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    pointer = _pointer(context, builder, array_type, array, at, COUNT)
    return builder.bitcast(pointer, BYTES.vector.as_pointer())


@intrinsic
def load(_: Any, array: Any, at: Any) -> Any:
    """array[at : at + 16] of a flat uint8 array, as Bytes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_bytes_at(context, builder, array, *arguments), align=1)

    return BYTES(array, types.int64), generate


@intrinsic
def store(_: Any, array: Any, at: Any, values: Any) -> Any:
    """array[at : at + 16] = values."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, place, lanes = arguments
        builder.store(lanes, _bytes_at(context, builder, array, target, place), align=1)
        return context.get_dummy_value()

    return types.none(array, types.int64, BYTES), generate


@intrinsic
def item(_: Any, array: Any, at: Any) -> Any:
    """array[at], without numba's test for an index that counts from the end."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, place = arguments
        return builder.load(_pointer(context, builder, array, values, place, 1))

    return array.dtype(array, types.int64), generate


def _operation(arguments: tuple[Any, ...], result: Any, write: Callable[..., Any]) -> Any:
    """A function of lanes and numbers; `write` takes LLVM's builder and their values."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return write(builder, *values)

    return result(*arguments), generate


@intrinsic
def filled(_: Any, number: Any) -> Any:
    """Sums of sixteen times the number."""
    return _operation((types.int32,), SUMS, _all)


@intrinsic
def widened(_: Any, values: Any) -> Any:
    """Bytes as Sums."""
    return _operation((BYTES,), SUMS, lambda builder, lanes: builder.zext(lanes, SUMS.vector))


@intrinsic
def plus(_: Any, first: Any, second: Any) -> Any:
    """Sums: first + second."""
    return _operation((SUMS, SUMS), SUMS, lambda builder, x, y: builder.add(x, y))


@intrinsic
def minus(_: Any, first: Any, second: Any) -> Any:
    """Sums: first - second."""
    return _operation((SUMS, SUMS), SUMS, lambda builder, x, y: builder.sub(x, y))


@intrinsic
def times(_: Any, values: Any, number: Any) -> Any:
    """Sums: values * number, modulo 2^32."""
    return _operation(
        (SUMS, types.int32), SUMS, lambda builder, x, k: builder.mul(x, _all(builder, k))
    )


@intrinsic
def top_byte(_: Any, values: Any) -> Any:
    """Bytes: floor(values / 2^24) of Sums that are meant as uint32."""

    def write(builder: Any, lanes: Any) -> Any:
        return builder.trunc(builder.lshr(lanes, _constant(24)), BYTES.vector)

    return _operation((SUMS,), BYTES, write)


@intrinsic
def clipped(_: Any, values: Any, bits: Any) -> Any:
    """Bytes: floor(values / 2^bits), clipped to 0..255."""

    def write(builder: Any, lanes: Any, shift: Any) -> Any:
        black, white = _constant(0), _constant(255)
        lanes = builder.ashr(lanes, _all(builder, shift))
        lanes = builder.select(builder.icmp_signed("<", lanes, black), black, lanes)
        lanes = builder.select(builder.icmp_signed(">", lanes, white), white, lanes)
        return builder.trunc(lanes, BYTES.vector)

    return _operation((SUMS, types.int32), BYTES, write)


@intrinsic
def transpose(_: Any, source: Any, at: Any, pitch: Any, target: Any, to: Any, stride: Any) -> Any:
    """target[to + j * stride + i] = source[at + i * pitch + j] for i and j in 0..15; uint8."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, at, pitch, results, to, stride = arguments
        rows = []
        for _ in range(COUNT):
            rows.append(builder.load(_bytes_at(context, builder, source, values, at), align=1))
            at = builder.add(at, pitch)
        for row in _transposed(builder, rows):
            builder.store(row, _bytes_at(context, builder, target, results, to), align=1)
            to = builder.add(to, stride)
        return context.get_dummy_value()

    long = types.int64
    return types.none(source, long, long, target, long, long), generate


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """The columns of a 16 x 16 matrix: four times, interleave row k with row k + 8.

    Each round turns the index (row, column), as 4 + 4 bits, left by one bit.
    """
    half = COUNT // 2
    low = _order([lane for k in range(half) for lane in (k, COUNT + k)])
    high = _order([lane for k in range(half, COUNT) for lane in (k, COUNT + k)])
    for _ in range(4):
        rows = [
            builder.shuffle_vector(rows[k], rows[k + half], order)
            for k in range(half)
            for order in (low, high)
        ]
    return rows
