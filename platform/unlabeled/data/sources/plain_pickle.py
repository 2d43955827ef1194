"""Pickle files that hold data alone, read without importing or calling anything they name."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from unlabeled.errors import DataError

# What damaged or hostile bytes make the unpickler raise (the pickle module's documentation, and the
# stand-ins below).
MALFORMED = (
    pickle.UnpicklingError,
    *(AttributeError, EOFError, ImportError, IndexError, KeyError, MemoryError),
    *(OverflowError, RecursionError, TypeError, ValueError),
)
NUMBERS = {"b1", *(f"{kind}{size}" for kind in "iu" for size in "1248"), "f2", "f4", "f8"}


def read_plain_pickle(path: str | os.PathLike[str]) -> Any:
    """Dicts, lists, tuples, sets, text, numbers and numpy arrays of numbers from a pickle file.

    A pickle can call any function it names. Here it can name nothing but numpy's arrays, and for
    these stand-ins are called that only keep numbers. DataError for anything else, and for a file
    that cannot be read.
    """
    try:
        data = Path(path).read_bytes()
        _refuse_wide_memo(data)
        return _revealed(_PlainUnpickler(io.BytesIO(data)).load(), {})
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except MALFORMED as error:
        raise DataError(
            f"{path} is no pickle of plain data ({error}) and is not opened, as a pickle can run "
            "any program; download it again, or save what it holds as JSON where you trust it"
        ) from error


def _refuse_wide_memo(data: bytes) -> None:
    """A few bytes can ask for a table of 2^32 places to remember objects in: 32 GB of memory."""
    for opcode, argument, _ in pickletools.genops(data):
        if "PUT" in opcode.name and isinstance(argument, int) and argument > len(data):
            raise pickle.UnpicklingError(f"it numbers an object {argument}")


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")  # Python 2 wrote the bytes of arrays as text

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name, or a refusal; nothing is imported."""
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _STAND_INS[module, name]


class _StandIn:
    """What a pickle may call; it has no state that a pickle could change."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it changes what is not its own")


class _Bytes(_StandIn):
    """_codecs.encode: how a protocol without bytes writes them."""

    def __new__(cls, text: str, encoding: str) -> bytes:  # type: ignore[misc]
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"it encodes as {encoding!r}")
        return text.encode("latin1")


class _Empty(_StandIn):
    """bytes(): how such a protocol writes none."""

    def __new__(cls) -> bytes:  # type: ignore[misc]
        return b""


class _DType(_StandIn):
    """numpy.dtype of a whole number, a real number or a truth value."""

    __slots__ = ("dtype",)

    def __init__(self, code: str, align: object = False, copy: object = True) -> None:
        if code.lstrip("<>=|") not in NUMBERS:
            raise pickle.UnpicklingError(f"it holds an array of {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array(_StandIn):
    """numpy.ndarray, and what makes an empty one that is filled later."""

    __slots__ = ("array",)

    def __init__(self, *made_of: object) -> None:
        self.array = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        flat = np.frombuffer(_raw(raw), dtype=kind.dtype)
        self.array = flat.reshape(shape, order="F" if fortran else "C")


class _Scalar(_StandIn):
    """numpy.core.multiarray.scalar: one number."""

    def __new__(cls, kind: _DType, raw: bytes | str) -> Any:
        return np.frombuffer(_raw(raw), dtype=kind.dtype)[0].item()


def _raw(data: bytes | str) -> bytes:
    return data.encode("latin1") if isinstance(data, str) else data


_STAND_INS: dict[tuple[str, str], type] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _Bytes,
    ("__builtin__", "bytes"): _Empty,
    **{
        (f"numpy.{core}.multiarray", name): stand_in
        for core in ("core", "_core")
        for name, stand_in in (("_reconstruct", _Array), ("scalar", _Scalar))
    },
}


def _revealed(value: Any, known: dict[int, Any]) -> Any:
    """The same with real arrays in the place of stand-ins.

    known: what has been made of objects so far, by identity. One that stands in many places is made
    once, as it was: a chain of lists that each hold the one before many times would grow without
    bound otherwise.
    """
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, _StandIn | type):
        raise pickle.UnpicklingError("it holds a type as a value")
    if isinstance(value, dict | list | tuple) and id(value) not in known:
        if isinstance(value, dict):
            known[id(value)] = {key: _revealed(item, known) for key, item in value.items()}
        else:
            known[id(value)] = type(value)(_revealed(item, known) for item in value)
    return known.get(id(value), value)
