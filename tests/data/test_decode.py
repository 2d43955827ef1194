from __future__ import annotations

import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unlabeled.data.decode import BrokenImage, decode_file

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def picture(height: int = 40, width: int = 60) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 4, y * 6, (x + y) * 2], axis=2).astype(np.uint8)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_lossless_rgb_comes_back_as_it_is(tmp_path: Path) -> None:
    for suffix in ("png", "bmp", "tif", "ppm"):
        path = save(tmp_path / f"a.{suffix}", Image.fromarray(picture()))
        pixels = decode_file(path)
        assert pixels.dtype == np.uint8 and np.array_equal(pixels, picture())


def test_alpha_is_dropped_and_the_colour_beneath_stays(tmp_path: Path) -> None:
    alpha = np.full((40, 60, 1), 0, dtype=np.uint8)
    rgba = Image.fromarray(np.concatenate([picture(), alpha], axis=2))
    assert np.array_equal(decode_file(save(tmp_path / "a.png", rgba)), picture())


def test_grey_and_grey_with_alpha_fill_three_channels(tmp_path: Path) -> None:
    grey = picture()[:, :, 0]
    for mode in ("L", "LA"):
        path = save(tmp_path / f"{mode}.png", Image.fromarray(grey).convert(mode))
        assert np.array_equal(decode_file(path), np.repeat(grey[:, :, None], 3, axis=2))


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    bits = np.eye(16, dtype=bool)
    pixels = decode_file(save(tmp_path / "a.png", Image.fromarray(bits)))
    assert np.array_equal(pixels, np.repeat(bits[:, :, None] * np.uint8(255), 3, axis=2))


@pytest.mark.parametrize("transparency", [None, 1, b"\x00\x80\xff"])
def test_palettes_give_their_colours(tmp_path: Path, transparency: object) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    options = {} if transparency is None else {"transparency": transparency}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = decode_file(save(tmp_path / "a.png", image, **options))
    assert pixels.tolist() == [[list(RED), list(GREEN), list(BLUE)]]


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    pixels = decode_file(save(tmp_path / "a.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0))))
    assert abs(pixels.astype(int) - RED).max() <= 3


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 129, 257 * 100, 257 * 200 + 128, 65535]], dtype=np.uint16)
    pixels = decode_file(save(tmp_path / f"a.{suffix}", Image.fromarray(values)))
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 100, 200, 255]
    assert pixels.shape == (1, 6, 3)


def test_big_endian_sixteen_bit_grey(tmp_path: Path) -> None:
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5 2 1 65535\n" + struct.pack(">2H", 257 * 7, 65535))
    assert decode_file(path)[0, :, 0].tolist() == [7, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 257 * 30, 65535]], dtype=np.int32), [0, 30, 255]),  # 16 bits in 32
        (np.array([[-1000, 0, 1000]], dtype=np.int32), [0, 128, 255]),  # stretched
        (np.array([[0, 0.5, 1]], dtype=np.float32), [0, 128, 255]),  # [0, 1]
        (np.array([[0, 17, 200]], dtype=np.float32), [0, 17, 200]),  # [0, 255]
        (np.array([[-2, np.nan, 2]], dtype=np.float32), [0, 0, 255]),  # stretched, holes dark
        (np.array([[5000, 5000]], dtype=np.float32), [0, 0]),  # constant
    ],
)
def test_wide_values_are_brought_to_eight_bits(
    tmp_path: Path, values: np.ndarray, expected: list[int]
) -> None:
    assert (
        decode_file(save(tmp_path / "a.tif", Image.fromarray(values)))[0, :, 1].tolist() == expected
    )


def test_no_finite_value_is_broken(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", Image.fromarray(np.full((2, 2), np.nan, dtype=np.float32)))
    with pytest.raises(BrokenImage, match="no finite pixel"):
        decode_file(path)


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda p: p),
        (2, lambda p: p[:, ::-1]),
        (3, lambda p: p[::-1, ::-1]),
        (4, lambda p: p[::-1]),
        (5, lambda p: p.transpose(1, 0, 2)),
        (6, lambda p: np.rot90(p, -1)),
        (7, lambda p: p[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda p: np.rot90(p)),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_exif_orientation_is_applied(
    tmp_path: Path, orientation: int, turn: object, suffix: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(picture()), exif=exif)
    assert callable(turn)
    assert np.array_equal(decode_file(path), turn(picture()))


def test_a_malformed_exif_block_does_not_cost_the_image(tmp_path: Path) -> None:
    path = save(
        tmp_path / "a.jpg", Image.fromarray(picture()), exif=b"Exif\x00\x00MM\x00*\xff\xff\xff"
    )
    assert decode_file(path).shape == (40, 60, 3)


def test_of_several_frames_the_first(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in (RED, GREEN)]
    for suffix in ("gif", "tif", "webp"):
        path = tmp_path / f"a.{suffix}"
        options = {"lossless": True} if suffix == "webp" else {}
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        assert np.array_equal(decode_file(path), np.broadcast_to(np.uint8(RED), (4, 6, 3)))


def test_reasons_of_broken_files(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.jpg", Image.fromarray(picture())).read_bytes()
    (tmp_path / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not found")
    reasons = {
        "truncated.jpg": "truncated",
        "empty.jpg": "not an image",
        "text.jpg": "not an image",
        "missing.jpg": "no such file",
        ".": "is a directory",
    }
    for name, reason in reasons.items():
        with pytest.raises(BrokenImage, match=f"(?i){reason}") as caught:
            decode_file(tmp_path / name)
        assert str(tmp_path) not in str(caught.value) and len(str(caught.value)) < 130


@pytest.mark.parametrize("side", [11_000, 100_000])
def test_a_bomb_is_broken_before_it_is_inflated(tmp_path: Path, side: int) -> None:
    # A PNG header alone: PIL warns about 121 megapixels and refuses 10,000.
    path = save(tmp_path / "a.png", Image.new("L", (1, 1)))
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    path.write_bytes(data)
    with pytest.raises(BrokenImage, match="decompression bomb"):
        decode_file(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "tif", "webp", "ppm", "jp2"])
def test_damaged_bytes_give_an_image_or_a_broken_image(tmp_path: Path, suffix: str) -> None:
    whole = save(tmp_path / f"whole.{suffix}", Image.fromarray(picture())).read_bytes()
    generator = np.random.default_rng(len(suffix) + ord(suffix[0]))
    path = tmp_path / f"damaged.{suffix}"
    for _ in range(60):
        damaged = bytearray(whole)
        for place in generator.integers(0, min(len(whole), 400), size=3):
            damaged[place] = generator.integers(0, 256)
        path.write_bytes(damaged[: generator.integers(1, len(whole) + 1)])
        try:
            pixels = decode_file(path)
        except BrokenImage:
            continue
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3


def test_every_open_file_is_closed(tmp_path: Path) -> None:
    path = save(tmp_path / "a.gif", Image.fromarray(picture()))
    (tmp_path / "broken.gif").write_bytes(path.read_bytes()[:30])
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        decode_file(path)
        with pytest.raises(BrokenImage):
            decode_file(tmp_path / "broken.gif")
    assert len(os.listdir("/proc/self/fd")) == before
