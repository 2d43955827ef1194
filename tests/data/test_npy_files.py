"""Arrays that others wrote: whole, or refused in one line."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from unlabeled.data.npy_files import map_array
from unlabeled.errors import DataError


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def with_header(header: str) -> bytes:
    text = header.ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(64)


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.zeros(3))
    return file.getvalue()


WHOLE = saved(np.arange(12).reshape(3, 4))
DAMAGED = {
    "empty": b"",
    "text": b"a.jpg\nb.jpg\n",
    "an archive": npz(),
    "a torn archive": npz()[:40],
    "cut short": WHOLE[:-1],
    "half a header": WHOLE[:40],
    "an open bracket": with_header("{'descr': '<i8', 'fortran_order': False, 'shape': (3,"),
    "an open quote": with_header("{'descr': '<i8', 'fortran_order': False, 'shape: (3,)}"),
    "a shape of 26 digits": with_header(
        f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({10**25},), }}"
    ),
    "more than there is": with_header(
        f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({10**13},), }}"
    ),
    "less than nothing": with_header("{'descr': '<i8', 'fortran_order': False, 'shape': (-3,), }"),
    "objects": with_header("{'descr': '|O', 'fortran_order': False, 'shape': (3,), }"),
    "no type": with_header("{'descr': 3, 'fortran_order': False, 'shape': (3,), }"),
}


def test_a_whole_one_comes_back_and_cannot_be_changed(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(WHOLE)
    array = map_array(tmp_path / "a.npy")
    assert np.array_equal(array, np.arange(12).reshape(3, 4))
    assert not array.flags.writeable


def test_no_rows_are_rows_too(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(saved(np.zeros((0, 4), np.float16)))
    assert map_array(tmp_path / "a.npy").shape == (0, 4)


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_is_none_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(DAMAGED[damage])
    with pytest.raises(DataError) as caught:
        map_array(path)
    assert str(caught.value).startswith(f"cannot read {path}: ")


def test_no_byte_of_a_header_ends_in_a_traceback(tmp_path: Path) -> None:
    path, refused = tmp_path / "a.npy", 0
    for place in range(128):
        for byte in (0, 0x28, 0x27, 0x39, 0x80, 0xFF):
            path.write_bytes(WHOLE[:place] + bytes([byte]) + WHOLE[place + 1 :])
            try:
                map_array(path)
            except DataError:
                refused += 1
    assert refused > 300


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        map_array(tmp_path / "a.npy")
