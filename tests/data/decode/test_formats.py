"""Files of every kind as they come: an image, or a BrokenImage that says why."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from unlabeled.data.decode import BrokenImage, decode_bytes, decode_file
from unlabeled.data.decode.files import READ_WHOLE_BYTES
from unlabeled.data.decode.pil import decode_pil

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


def test_signalling_nans_are_holes_like_others(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", Image.fromarray(np.zeros((1, 4), dtype=np.float32)))
    data = path.read_bytes()
    values = struct.pack("<IfIf", 0x7F800001, 1.0, 0x7F800001, 0.5)
    place = data.rindex(bytes(16))
    pixels = decode_bytes(data[:place] + values + data[place + 16 :])
    assert pixels[0, :, 0].tolist() == [0, 255, 0, 128]


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
    (tmp_path / "page.jpg").write_text("<!DOCTYPE html><html>404</html>")
    (tmp_path / "zeros.jpg").write_bytes(bytes(5000))
    (tmp_path / "start.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "text.jpg").write_text("not found")
    reasons = {
        "truncated.jpg": "truncated",
        "empty.jpg": "not an image",
        "text.jpg": "not an image",
        "page.jpg": "not an image",
        "zeros.jpg": "not an image",
        "start.jpg": "not an image",
        "missing.jpg": "no such file",
        ".": "is a directory",
    }
    for name, reason in reasons.items():
        with pytest.raises(BrokenImage, match=f"(?i){reason}") as caught:
            decode_file(tmp_path / name)
        assert str(tmp_path) not in str(caught.value) and len(str(caught.value)) < 130


def test_every_open_file_is_closed(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for suffix in ("gif", "jpg"):
        path = save(tmp_path / f"a.{suffix}", Image.fromarray(picture()))
        (tmp_path / f"broken.{suffix}").write_bytes(path.read_bytes()[:30])
        for _ in range(20):
            decode_file(path)
            for broken in (tmp_path / f"broken.{suffix}", tmp_path):
                with pytest.raises(BrokenImage):
                    decode_file(broken)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_content_counts_and_not_the_name(tmp_path: Path) -> None:
    kinds = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
    for kind, suffix in zip(kinds, (*kinds[1:], kinds[0]), strict=True):
        path = tmp_path / f"a.{suffix}"
        options = {"lossless": True} if kind == "WEBP" else {}
        Image.new("RGB", (6, 4), RED).save(path, kind, **options)
        assert abs(decode_file(path).astype(int) - RED).max() <= 1, kind
    path = save(tmp_path / "a", Image.fromarray(picture()), format="PNG")
    assert np.array_equal(decode_file(path), picture())


def iptc(payload: bytes) -> bytes:
    """A grey picture of 4 by 4 in IPTC's fields, in whatever format the payload is."""
    jpeg, end = 5, 10
    sizes = {20: b"\0\4", 30: b"\0\4", 60: b"\1\0", 120: bytes([0, jpeg])}
    fields = [((3, number), value) for number, value in sizes.items()] + [((8, end), payload)]
    return b"".join(
        bytes([0x1C, *tag]) + struct.pack(">H", len(value)) + value for tag, value in fields
    )


@pytest.mark.parametrize("kind", ["EPS", "IPTC"])
def test_no_picture_is_run_as_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n(run) print\n"
    path = tmp_path / "harmless.jpg"
    path.write_bytes(postscript if kind == "EPS" else iptc(postscript))
    witness, ghostscript = tmp_path / "witness", tmp_path / "gs"
    ghostscript.write_text(f'#!/bin/sh\necho "$@" >> {witness}\n')
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # it is looked for once a process
    with pytest.raises(BrokenImage, match=f"^{kind} is or may hold a program"):
        decode_file(path)
    assert not witness.exists()
    with Image.open(path) as image, pytest.raises(OSError):  # what PIL itself does with the file
        image.load()
    assert witness.exists()


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "tif", "webp"])
@pytest.mark.parametrize("size", [(1, 1), (1, 700), (16_000, 1), (1, 16_000)], ids=str)
def test_thin_and_long_images(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    image = Image.fromarray(picture()).resize(size)
    path = save(tmp_path / f"a.{suffix}", image)
    with Image.open(path) as opened:
        wanted = np.asarray(opened.convert("RGB"))
    pixels = decode_file(path)
    assert pixels.shape == (size[1], size[0], 3)
    assert np.array_equal(pixels, wanted)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_thirty_thousand_pixels_wide(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", Image.new("RGB", (30_000, 17), (0, 128, 255)))
    pixels = decode_file(path)
    assert pixels.shape == (17, 30_000, 3)
    assert abs(pixels.astype(int) - (0, 128, 255)).max() <= 1


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG from its raw rows, each behind a filter byte; colour: 0 grey, 2 RGB, 4 LA, 6 RGBA."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


@pytest.mark.parametrize("colour", [2, 4, 6])
def test_sixteen_bit_colours_keep_their_upper_byte(colour: int) -> None:
    """PIL reads these as eight bits, v >> 8, which is at most one level below v / 257."""
    channels = {2: 3, 4: 2, 6: 4}[colour]
    values = np.random.default_rng(colour).integers(0, 65536, (5, 7, channels), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    pixels = decode_bytes(png(7, 5, 16, colour, rows))
    colours = values[:, :, :1] if channels == 2 else values[:, :, :3]
    assert pixels.shape == (5, 7, 3)
    assert np.array_equal(pixels, np.broadcast_to(colours >> 8, (5, 7, 3)))


def test_what_is_not_a_file_does_not_keep_us_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    reasons = {
        tmp_path / "pipe.jpg": "not a regular file",
        Path("/dev/zero"): "not a regular file",
        tmp_path / "loop.jpg": "symbolic links",
        tmp_path / "link.jpg": "no such file",
        tmp_path / "a\0b.jpg": "null",
    }
    for path, reason in reasons.items():
        with pytest.raises(BrokenImage, match=reason):
            decode_file(path)
    path = save(tmp_path / "a.png", Image.fromarray(picture()))
    (tmp_path / "good.png").symlink_to(path)
    assert np.array_equal(decode_file(tmp_path / "good.png"), picture())


@pytest.mark.slow
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(picture()))
    decode_file(path)  # everything that decoding imports, before the child may read no more
    path.chmod(0)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.geteuid() == 0:  # whom no permission keeps from reading
                os.setuid(65534)
            decode_file(path)
        except BrokenImage as error:
            status = 0 if str(error) == "permission denied" else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_large_file_is_not_read_as_a_whole(tmp_path: Path) -> None:
    for suffix in ("jpg", "png"):
        path = save(tmp_path / f"a.{suffix}", Image.fromarray(picture()))
        wanted = decode_file(path)
        os.truncate(path, READ_WHOLE_BYTES + 1)  # a hole, and no disk space
        tracemalloc.start()
        try:
            assert np.array_equal(decode_file(path), wanted)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < READ_WHOLE_BYTES / 8


def test_warnings_of_other_modules_are_left_alone(tmp_path: Path) -> None:
    """Decoding threads must not swap the list of filters under whoever else changes it."""
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    data = save(tmp_path / "a.png", image, transparency=b"\x00\x80\xff").read_bytes()

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert warnings.filters is current
            return super().read(size)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        current = warnings.filters
        decode_pil(Watched(data), None)
        assert warnings.filters is current
        count = len(current)
        decode_pil(Watched(data), None)
        assert len(current) == count
        with pytest.raises(UserWarning, match="mine"):
            warnings.warn("mine", stacklevel=1)
