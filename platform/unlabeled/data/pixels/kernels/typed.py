"""Arithmetic of exactly 16 and 32 bits: what numba would widen to 64, and no vector unit likes.

`uint16 + uint16` is an int64 to numba, which leaves a vector register a quarter of its numbers.
These are single instructions of LLVM on operands as narrow as they are; they wrap around.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _instruction(name: str, kind: Any) -> Any:
    """The instruction of LLVM's builder on two integers of this kind."""

    def typed(_: Any, first: Any, second: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, name)(*arguments)

        return kind(kind, kind), generate

    return intrinsic(typed)


def _high_half(builder: Any, first: Any, second: Any) -> Any:
    """floor(first * second / 2^16) of unsigned words.

    A fixed-point product: written as a shift of a wider product, LLVM may join it with the shifts
    around it and end with a 32-bit multiplication, at a third of the speed.
    """
    word, bits = ir.IntType(16), ir.IntType(32)
    function = ir.FunctionType(word, [word, word, bits])
    product = builder.module.declare_intrinsic("llvm.umul.fix", (word,), function)
    return builder.call(product, [first, second, ir.Constant(bits, 16)])


@intrinsic
def high_half_unsigned(_: Any, first: Any, second: Any) -> Any:
    """floor(first * second / 2^16) of two uint16."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _high_half(builder, *arguments)

    return types.uint16(types.uint16, types.uint16), generate


@intrinsic
def high_half_signed(_: Any, first: Any, second: Any) -> Any:
    """floor(first * second / 2^16) of an int16 and a uint16."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        signed, unsigned = arguments
        # As an unsigned word a negative number is larger by 2^16, and the product by 2^16 times
        # the second.
        sign = builder.ashr(signed, ir.Constant(signed.type, 15))
        return builder.sub(_high_half(builder, signed, unsigned), builder.and_(sign, unsigned))

    return types.int16(types.int16, types.uint16), generate


shift_left_unsigned = _instruction("shl", types.uint16)
shift_right_unsigned = _instruction("lshr", types.uint16)

add_signed = _instruction("add", types.int16)
subtract_signed = _instruction("sub", types.int16)
shift_left_signed = _instruction("shl", types.int16)
shift_right_signed = _instruction("ashr", types.int16)

add = _instruction("add", types.int32)
multiply = _instruction("mul", types.int32)
shift_right = _instruction("lshr", types.int32)


@intrinsic
def pointer(_: Any, address: Any) -> Any:
    """A pointer to uint8 from an address."""
    result = types.CPointer(types.uint8)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(result))

    return result(types.int64), generate
