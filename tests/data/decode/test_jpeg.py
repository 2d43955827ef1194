"""JPEGs through simplejpeg: the pixels of PIL, or PIL itself."""

from __future__ import annotations

import io
import mmap
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from tests_support.commands import python
from unlabeled.data.decode import BrokenImage, decode_bytes, decode_file
from unlabeled.data.decode.jpeg_header import plain_jpeg_size
from unlabeled.data.decode.turbo import _simplejpeg, decode_turbo
from unlabeled.data.sources.installed_files import installed_file

PHOTOGRAPHS = {
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "retina": ("skimage", "data/retina.jpg"),
    "coffee": ("skimage", "data/coffee.png"),
}
# Blocks of 8 and 16 exactly, one pixel more, one less, and a single row, column and pixel.
SIZES = [(120, 90), (64, 48), (65, 49), (63, 47), (17, 9), (90, 1), (1, 90), (1, 1)]


def path_of(name: str) -> Path:
    path = installed_file(*PHOTOGRAPHS[name])
    assert path is not None
    return Path(path)


def photograph(name: str) -> Image.Image:
    with Image.open(path_of(name)) as image:
        return image.convert("RGB")


def jpeg(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def by_pil(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def assert_equal_and_fast(data: bytes) -> None:
    """The same pixels as PIL's, and they did not come from PIL."""
    wanted = by_pil(data)
    height, width = wanted.shape[:2]
    assert plain_jpeg_size(data) == (width, height)
    fast = decode_turbo(data, width, height, 1)
    assert fast is not None and np.array_equal(fast, wanted)
    pixels = decode_bytes(data)
    assert pixels.dtype == np.uint8 and np.array_equal(pixels, wanted)


def encodings(image: Image.Image) -> Iterator[bytes]:
    pixels = np.ascontiguousarray(np.asarray(image))
    for quality in (5, 50, 90, 100):
        for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
            for coding in ({}, {"progressive": True}, {"optimize": True}):
                yield jpeg(image, quality=quality, subsampling=subsampling, **coding)
        for subsampling in ("440", "411"):  # PIL writes 4:2:0 for both
            yield simplejpeg.encode_jpeg(pixels, quality, colorsubsampling=subsampling)
        yield jpeg(image, quality=quality, restart_marker_blocks=2)
        yield jpeg(image, quality=quality, restart_marker_rows=1, progressive=True)
        yield jpeg(image.convert("L"), quality=quality)
        yield jpeg(image.convert("L"), quality=quality, progressive=True)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pixels_are_those_of_pil(name: str, size: tuple[int, int]) -> None:
    for data in encodings(photograph(name).resize(size)):
        assert_equal_and_fast(data)


@pytest.mark.parametrize("name", ["china", "flower", "rocket", "retina"])
def test_whole_photographs_as_they_were_encoded_by_others(name: str) -> None:
    path = path_of(name)
    assert_equal_and_fast(path.read_bytes())
    assert np.array_equal(decode_file(path), by_pil(path.read_bytes()))


def test_metadata_and_what_follows_the_end_change_nothing() -> None:
    image = photograph("china").resize((64, 48))
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    for options in (
        {"exif": exif},
        {"icc_profile": bytes(70_000)},  # in two segments
        {"comment": b"\xff\xd8\xff\xc0"},
        {"dpi": (300, 300)},
    ):
        data = jpeg(image, **options)
        assert_equal_and_fast(data)
        assert_equal_and_fast(data + b"\xff\xd8 whatever")
        assert np.array_equal(decode_bytes(data), decode_bytes(jpeg(image)))


@pytest.mark.parametrize("progressive", [False, True])
def test_no_part_of_a_file_is_an_image(progressive: bool) -> None:
    data = jpeg(photograph("china").resize((40, 30)), progressive=progressive)
    assert_equal_and_fast(data)
    for cut in range(len(data)):
        with pytest.raises(BrokenImage):
            decode_bytes(data[:cut])


def test_what_libjpeg_warns_of_is_for_pil_to_decide() -> None:
    data = bytearray(jpeg(photograph("china").resize((64, 48)), restart_marker_blocks=4))
    data[data.index(b"\xff\xd1")] = 0  # a restart marker is gone; PIL takes the file
    damaged = bytes(data)
    assert plain_jpeg_size(damaged) == (64, 48) and decode_turbo(damaged, 64, 48, 1) is None
    assert np.array_equal(decode_bytes(damaged), by_pil(damaged))


def test_a_size_that_is_not_the_files_is_no_image() -> None:
    data = jpeg(photograph("china").resize((64, 48)))
    assert decode_turbo(data, 48, 64, 1) is None


def test_any_buffer_will_do() -> None:
    data = jpeg(photograph("flower").resize((33, 21)))
    wanted = by_pil(data)
    with mmap.mmap(-1, len(data) + 10) as memory:
        memory[3 : 3 + len(data)] = data
        shard = memoryview(memory)
        part = shard[3 : 3 + len(data)]
        results = [decode_bytes(part), decode_bytes(bytearray(data))]
        part.release()
        shard.release()
    array = np.frombuffer(data, dtype=np.uint8)
    for pixels in (*results, decode_bytes(array.data)):
        assert np.array_equal(pixels, wanted)
    png = io.BytesIO()
    Image.fromarray(wanted).save(png, "PNG")
    assert np.array_equal(decode_bytes(memoryview(png.getvalue())), wanted)
    with pytest.raises(TypeError):
        decode_bytes(memoryview(data)[::2])


def test_without_simplejpeg_pil_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg(photograph("rocket").resize((50, 40)))
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    _simplejpeg.cache_clear()
    try:
        assert decode_turbo(data, 50, 40, 1) is None
        assert np.array_equal(decode_bytes(data), by_pil(data))
        with pytest.raises(BrokenImage, match="truncated"):
            decode_bytes(data[:-100])
    finally:
        _simplejpeg.cache_clear()


@pytest.mark.slow
def test_simplejpeg_is_imported_by_the_first_jpeg() -> None:
    lines = (
        "import io, sys",
        "from PIL import Image",
        "from unlabeled.data.decode import decode_bytes",
        "for kind in ('PNG', 'JPEG'):",
        "    buffer = io.BytesIO(); Image.new('RGB', (8, 8)).save(buffer, kind)",
        "    decode_bytes(buffer.getvalue()); print('simplejpeg' in sys.modules)",
    )
    result = python("-c", "\n".join(lines))
    assert result.stdout.split() == ["False", "True"], result.stderr
