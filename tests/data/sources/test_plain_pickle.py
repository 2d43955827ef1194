from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unlabeled.data.sources.plain_pickle import read_plain_pickle
from unlabeled.errors import DataError

TRUTH: dict[str, Any] = {
    "imlist": ["all_souls_000013", "oxford_\u00e9"],
    "gnd": [{"easy": [1, 2], "bbx": [0.5, 1.0, 2.0, 3.0], "junk": (), "found": True, "no": None}],
}


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_plain_data_comes_back(tmp_path: Path, protocol: int) -> None:
    file = written(tmp_path / "a.pkl", pickle.dumps(TRUTH, protocol))
    assert read_plain_pickle(file) == TRUTH


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["<i8", "<i4", ">i4", "|u1", "<f8", "<f4", "|b1"])
def test_arrays_and_numbers_of_numpy_come_back(tmp_path: Path, protocol: int, kind: str) -> None:
    array = (np.arange(6).reshape(2, 3) % 5).astype(kind)
    data = {
        "c": array,
        "fortran": [np.asfortranarray(array)],
        "none": array[:0],
        "one": array[1, 2],
    }
    found = read_plain_pickle(written(tmp_path / "a.pkl", pickle.dumps(data, protocol)))
    assert np.array_equal(found["c"], array) and found["c"].dtype.kind == array.dtype.kind
    assert np.array_equal(found["fortran"][0], array)
    assert found["none"].shape == (0, 3) and found["one"] == array[1, 2]


def test_python_2_wrote_the_bytes_of_arrays_as_text(tmp_path: Path) -> None:
    """Protocol 2, with a byte string where Python 3 names an encoder."""
    opcodes = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02i4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x08\x07\x00\x00\x00\xff\xff\xff\xfftb."
    )
    assert read_plain_pickle(written(tmp_path / "a.pkl", opcodes)).tolist() == [7, -1]


class Runs:
    """Pickled as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


TOUCH = "__import__('pathlib').Path('{}').touch()"


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("nested", [False, True], ids=["alone", "nested"])
def test_a_program_in_a_pickle_is_refused_and_not_run(
    tmp_path: Path, protocol: int, nested: bool
) -> None:
    trap = tmp_path / "sprung"
    for attack in (Runs(os.system, f"touch {trap}"), Runs(eval, TOUCH.format(trap))):
        data = {"imlist": ["a"], "gnd": [attack]} if nested else attack
        file = written(tmp_path / "a.pkl", pickle.dumps(data, protocol))
        with pytest.raises(DataError, match=r"it names .*(system|eval).*is not opened"):
            read_plain_pickle(file)
        assert not trap.exists()
        pickle.loads(file.read_bytes())  # the attack is real
        assert trap.exists()
        trap.unlink()


@pytest.mark.parametrize(
    "value",
    [
        Path("x"),
        np.array([{}], dtype=object),
        np.array(["text"]),
        np.zeros(2, dtype=[("a", "i4"), ("b", "O")]),
        np.ndarray,
        np.dtype("f4"),
        bytearray(b"x"),
        Runs(np.load, "x.npy"),
        Runs(__import__, "os"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_but_plain_data_is_refused(tmp_path: Path, value: Any) -> None:
    file = written(tmp_path / "a.pkl", pickle.dumps({"gnd": [value]}, 2))
    with pytest.raises(DataError, match="no pickle of plain data"):
        read_plain_pickle(file)


def test_stand_ins_cannot_be_changed(tmp_path: Path) -> None:
    """A state for a stand-in itself, for its class, and for the number it made."""
    names = (
        b"cnumpy\nndarray\n",
        b"cnumpy\ndtype\n",
        b"c_codecs\nencode\n",
        b"cnumpy.core.multiarray\nscalar\n",
    )
    for name in names:
        for state in (b"}U\x01aK\x01sb.", b"N}U\x01aK\x01s\x86b."):
            with pytest.raises(DataError):
                read_plain_pickle(written(tmp_path / "a.pkl", b"\x80\x02" + name + state))
    file = written(tmp_path / "good.pkl", pickle.dumps(np.arange(3), 2))
    assert read_plain_pickle(file).tolist() == [0, 1, 2]


def test_small_files_that_would_fill_the_memory_do_not(tmp_path: Path) -> None:
    wide = b"\x80\x02]r\xff\xff\xff\xff."  # an empty list, remembered at place 2^32 - 1
    with pytest.raises(DataError, match="it numbers an object 4294967295"):
        read_plain_pickle(written(tmp_path / "wide.pkl", wide))
    deep: list[Any] = ["x"]
    for _ in range(60):
        deep = [deep, deep]  # 2^60 names, were each place a copy of its own
    found = read_plain_pickle(written(tmp_path / "deep.pkl", pickle.dumps(deep)))
    for _ in range(60):
        assert len(found) == 2 and found[0] is found[1]
        found = found[0]
    assert found == ["x"]


def test_damaged_files_are_named_whatever_is_damaged(tmp_path: Path) -> None:
    """Every cut and every changed byte of a real file gives data or a DataError."""
    whole = pickle.dumps({"a": [np.arange(3), np.float64(2), "x", 1.5]}, 2)
    damaged = [whole[:end] for end in range(len(whole))]
    random = np.random.default_rng(0)
    for place in range(len(whole)):
        damaged.append(whole[:place] + bytes([random.integers(256)]) + whole[place + 1 :])
    refused = 0
    for data in damaged:
        try:
            read_plain_pickle(written(tmp_path / "a.pkl", data))
        except DataError as error:
            refused += 1
            assert "a.pkl" in str(error)
    assert refused > len(whole)
    ring: list[Any] = []
    ring.append(ring)
    buffer = io.BytesIO()
    pickle.dump(ring, buffer)
    with pytest.raises(DataError):
        read_plain_pickle(written(tmp_path / "ring.pkl", buffer.getvalue()))
    with pytest.raises(DataError, match=r"cannot read .*nowhere.pkl: No such file"):
        read_plain_pickle(tmp_path / "nowhere.pkl")
