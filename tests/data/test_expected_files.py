"""What is missing, empty or cut short is found, and what is whole is left in peace."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unlabeled.data.expected_files import ExpectedFiles
from unlabeled.errors import DataError

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, kind)
    return file.getvalue()


def looked_at(root: Path, *names: str, decode: bool = False) -> list[str]:
    expected = ExpectedFiles(root, "  a/1.jpg ...")
    assert expected.images("images", names, decode=decode) == len(names)
    return expected.faults


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "GIF"])
def test_every_cut_of_an_image_is_found(tmp_path: Path, kind: str) -> None:
    whole = encoded(kind)
    (tmp_path / "a.jpg").write_bytes(whole)
    assert looked_at(tmp_path, "a.jpg") == [] == looked_at(tmp_path, "a.jpg", decode=True)
    for length in np.linspace(1, len(whole) - 30, num=15, dtype=int).tolist():
        (tmp_path / "a.jpg").write_bytes(whole[:length])
        assert looked_at(tmp_path, "a.jpg") == ["images: 1 of 1 damaged or cut short: a.jpg"]


def test_what_stands_behind_a_jpeg_does_not_make_it_broken(tmp_path: Path) -> None:
    for number, tail in enumerate((b"\0" * 9, b"\n", b"camera's own words" * 20)):
        (tmp_path / f"{number}.jpg").write_bytes(encoded("JPEG") + tail)
    assert looked_at(tmp_path, "0.jpg", "1.jpg", "2.jpg") == []


def test_damage_in_the_middle_needs_decoding(tmp_path: Path) -> None:
    whole = bytearray(encoded("PNG"))
    whole[len(whole) // 2 : len(whole) // 2 + 99] = bytes(99)
    (tmp_path / "a.png").write_bytes(whole)
    assert looked_at(tmp_path, "a.png") == []
    assert looked_at(tmp_path, "a.png", decode=True) == [
        "images: 1 of 1 damaged or cut short: a.png"
    ]


def test_all_that_is_wrong_is_said_at_once_with_the_layout(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.jpg").write_bytes(encoded("JPEG"))
    (tmp_path / "a" / "1.jpg").write_bytes(b"")
    (tmp_path / "a" / "2.jpg").write_bytes(b"<html>404</html>")
    told: list[tuple[str, int, int | None]] = []
    expected = ExpectedFiles(
        tmp_path, "  a/1.jpg ...", tell=lambda *progress: told.append(progress)
    )
    expected.images("images", [f"a/{number}.jpg" for number in range(12)])
    expected.count("classes", 3, 1000)
    expected.files("lists", ["list.txt"])
    assert expected.listing("b", ".jpg") == [] and expected.listing("a", ".jpg")[0] == "0.jpg"
    expected.checksums("sums", {"a/1.jpg": "d41d8cd98f00b204e9800998ecf8427e", "a/2.jpg": "0"})
    with pytest.raises(DataError) as caught:
        expected.require("ask for it at https://example.org")
    assert str(caught.value).split("\n") == [
        f"{tmp_path} is not complete:",
        "  images: 9 of 12 missing: a/3.jpg, a/4.jpg, a/5.jpg, a/6.jpg, a/7.jpg, ...",
        "  images: 1 of 12 empty: a/1.jpg",
        "  images: 1 of 12 damaged or cut short: a/2.jpg",
        "  classes: 3, published are 1,000",
        "  lists: 1 of 1 missing: list.txt",
        "  b: cannot be listed (No such file or directory)",
        "  sums: 1 of 2 are not the published ones (cut short?): a/2.jpg",
        "expected:",
        "  a/1.jpg ...",
        "ask for it at https://example.org",
    ]
    assert ("images", 12, None) in told
    ExpectedFiles(tmp_path, "", counts=False).count("classes", 3, 1000)
