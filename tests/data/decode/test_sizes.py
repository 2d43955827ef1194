"""What the size alone decides: bombs are refused unseen, large JPEGs are decoded smaller."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unlabeled.data.decode import BrokenImage, decode_bytes, decode_file
from unlabeled.data.decode.jpeg_header import plain_jpeg_size

ALL_KINDS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(width: int, height: int, rows: bytes) -> bytes:
    """One bit a pixel."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    )


def jpeg_of(width: int, height: int, **options: object) -> bytes:
    """A small JPEG that claims another size."""
    data = bytearray(encode(Image.new("RGB", (16, 16)), "JPEG", **options))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.slow
def test_six_hundred_megapixels_in_a_small_file(tmp_path: Path) -> None:
    side = 24_500
    path = tmp_path / "a.png"
    path.write_bytes(png_of(side, side, bytes(side * (1 + -(-side // 8)))))
    assert path.stat().st_size < 200_000
    with pytest.raises(BrokenImage, match="decompression bomb"):
        decode_file(path)


@pytest.mark.parametrize("kind", ["png", "plain jpeg", "jpeg for PIL", "gif", "bmp"])
@pytest.mark.parametrize("side", [11_000, 65_500])
def test_a_header_is_enough_to_be_refused(kind: str, side: int) -> None:
    """PIL itself warns of 121 megapixels and refuses 4290."""
    data = {
        "png": png_of(side, side, b""),
        "plain jpeg": jpeg_of(side, side),
        "jpeg for PIL": jpeg_of(side, side, keep_rgb=True),
        "gif": b"GIF89a"
        + struct.pack("<HH", side, side)
        + encode(Image.new("L", (1, 1)), "GIF")[10:],
        "bmp": b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0),
    }[kind]
    assert plain_jpeg_size(data) == ((side, side) if kind == "plain jpeg" else None)
    tracemalloc.start()
    try:
        with pytest.raises(BrokenImage, match="decompression bomb"):
            decode_bytes(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_the_limit_is_pils_to_the_pixel(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20 * 31)
    assert decode_bytes(encode(Image.new("RGB", (31, 20)), kind)).shape == (20, 31, 3)
    for size in ((31, 21), (32, 20), (200, 200)):
        with pytest.raises(BrokenImage, match="decompression bomb"):
            decode_bytes(encode(Image.new("RGB", size), kind))
        with pytest.raises(BrokenImage, match="decompression bomb"):
            decode_bytes(encode(Image.new("RGB", size), kind), at_least=1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode_bytes(encode(Image.new("RGB", (200, 201)), kind)).shape == (201, 200, 3)


@cache
def scene(width: int, height: int) -> Image.Image:
    """Smooth at a scale of a hundred pixels, so that all ways of shrinking nearly agree."""
    y, x = np.mgrid[:height, :width] / 100
    channels = [np.sin(x + y), np.cos(x - 2 * y), np.sin(3 * x)]
    return Image.fromarray((127.5 + 120 * np.stack(channels, axis=2)).astype(np.uint8))


@cache
def large(option: str) -> tuple[Image.Image, bytes]:
    image = scene(1201, 1103)
    return image, encode(image, "JPEG", quality=95, **{option: True})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at_least", "shrink"),
    [(None, 1), (2000, 1), (553, 1), (552, 2), (277, 2), (276, 4), (139, 4), (138, 8), (1, 8)],
)
@pytest.mark.parametrize("option", ["optimize", "progressive", "keep_rgb"])
def test_large_jpegs_shrink_as_far_as_the_shorter_side_allows(
    at_least: int | None, shrink: int, option: str
) -> None:
    image, data = large(option)
    pixels = decode_bytes(data, at_least=at_least)
    height, width = -(-1103 // shrink), -(-1201 // shrink)
    assert pixels.shape == (height, width, 3)
    assert at_least is None or min(height, width) >= min(at_least, 1103)
    with Image.open(io.BytesIO(data)) as opened:
        opened.draft(None, (1201 // shrink, 1103 // shrink))
        assert np.array_equal(pixels, np.asarray(opened))  # PIL's libjpeg at the same scale
    means = np.asarray(image.reduce(shrink))  # of each shrink x shrink square
    assert abs(pixels.astype(int) - means).mean() < 1.5


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((1000, 2000), (2000, 1000, 3)),
        ((2000, 1000), (1000, 2000, 3)),
        ((1001, 1002), (501, 501, 3)),
    ],
)
def test_both_sides_must_be_large(size: tuple[int, int], shape: tuple[int, ...]) -> None:
    assert decode_bytes(encode(scene(*size), "JPEG"), at_least=400).shape == shape


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_large_photographs_that_are_turned_shrink_too(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = scene(1600, 1200)
    turned = decode_bytes(encode(image, "JPEG", exif=exif), at_least=300)
    upright = decode_bytes(encode(image, "JPEG"), at_least=300)
    assert upright.shape == (300, 400, 3)
    quarter_turns = {3: 2, 6: -1, 8: 1}[orientation]
    assert np.array_equal(turned, np.rot90(upright, quarter_turns))


def test_other_jpegs_that_pil_decodes_shrink_too() -> None:
    image = scene(1600, 1200)
    buffer = io.BytesIO()
    image.save(buffer, "MPO", save_all=True, append_images=[image.resize((40, 30))])
    for data in (buffer.getvalue(), encode(image.convert("CMYK"), "JPEG")):
        assert decode_bytes(data, at_least=500).shape == (600, 800, 3)
        assert decode_bytes(data).shape == (1200, 1600, 3)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_other_formats_are_decoded_whole(kind: str) -> None:
    image = scene(1300, 1100)
    assert np.array_equal(decode_bytes(encode(image, kind), at_least=100), np.asarray(image))


def test_a_file_can_be_decoded_smaller(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    scene(1600, 1200).save(path)
    assert decode_file(path, at_least=300).shape == (300, 400, 3)
    assert decode_file(path).shape == (1200, 1600, 3)


def test_a_truncated_large_jpeg_is_broken_at_every_scale() -> None:
    data = encode(scene(1600, 1200), "JPEG")
    for at_least in (None, 600, 300, 150):
        with pytest.raises(BrokenImage, match="truncated"):
            decode_bytes(data[: len(data) // 2], at_least=at_least)
