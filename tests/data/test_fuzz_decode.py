"""Thousands of damaged files: views or a BrokenImage, and neither a crash, a hang nor a leak.

The damage is done in a process of its own, where a segmentation fault is seen as what it is.
"""

from __future__ import annotations

import io
import json
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests_support.commands import python
from unlabeled.config.check import build_config
from unlabeled.data.decode import BrokenImage, decode_bytes
from unlabeled.data.decode.pil import decode_pil
from unlabeled.data.randomness import SampleKey
from unlabeled.data.transforms.multi_crop import MultiCrop

FILES = 2000
PASSES_AFTER_WARM_UP = 2  # 4,000 decodes
LEAK_MB = 30
# Small enough that a header that claims a large image costs little to obey.
MAX_PIXELS = 1_000_000


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@cache
def seeds() -> list[bytes]:
    """Whole files of every kind that a photograph is likely to come in."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:48, :64]
    pixels = np.stack([x * 4, y * 5, x + y], axis=2) + generator.integers(0, 30, (48, 64, 3))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a maker"
    upright = Image.Exif()
    upright[0x0112], upright[0x010F] = 1, "a maker"
    frames = {"save_all": True, "append_images": [image.rotate(90)]}
    # Saving as JPEG leaves settings behind in an image, on which saving as TIFF then trips.
    pages = {"save_all": True, "append_images": [image.rotate(90)]}
    return [
        encode(image, "JPEG", quality=80),
        encode(image, "JPEG", quality=90, subsampling=0, restart_marker_blocks=2, optimize=True),
        encode(image, "JPEG", quality=90, progressive=True),
        encode(image, "JPEG", exif=exif),
        encode(image, "JPEG", exif=upright, icc_profile=bytes(300)),
        encode(image.convert("L"), "JPEG", progressive=True),
        encode(image.convert("CMYK"), "JPEG"),
        encode(image, "MPO", **frames),
        encode(image, "PNG", exif=exif),
        encode(image.convert("P"), "PNG", transparency=bytes(range(200))),
        encode(image.convert("I;16"), "PNG"),
        encode(image, "GIF", **frames),
        encode(image, "TIFF", compression="tiff_lzw"),
        encode(image.copy(), "TIFF", compression="tiff_adobe_deflate", **pages),
        encode(image, "TIFF", compression="jpeg"),
        encode(image.convert("F"), "TIFF"),
        encode(image, "WEBP", quality=80),
        encode(image.convert("RGBA"), "WEBP", lossless=True, **frames),
        encode(image, "BMP"),
        encode(image.convert("P"), "BMP"),
    ]


def flipped(data: bytes, generator: np.random.Generator) -> bytes:
    damaged = np.frombuffer(data, dtype=np.uint8).copy()
    places = generator.integers(0, len(data), size=generator.integers(1, 20))
    damaged[places] ^= np.uint8(1) << generator.integers(0, 8, size=len(places), dtype=np.uint8)
    return damaged.tobytes()


def truncated(data: bytes, generator: np.random.Generator) -> bytes:
    return data[: generator.integers(0, len(data))]


def spliced(data: bytes, generator: np.random.Generator) -> bytes:
    """The beginning of one file and the end of another, of its kind or not."""
    every = seeds()
    other = every[generator.integers(0, len(every))]
    return data[: generator.integers(0, len(data))] + other[generator.integers(0, len(other)) :]


def repeated(data: bytes, generator: np.random.Generator) -> bytes:
    first, last = sorted(generator.integers(0, len(data), size=2).tolist())
    place = generator.integers(0, len(data))
    return data[:place] + data[first:last] + data[place:]


def edited(data: bytes, generator: np.random.Generator) -> bytes:
    """Other values in the header, where sizes and offsets are; often the extreme ones."""
    damaged = bytearray(data)
    for _ in range(generator.integers(1, 5)):
        value = int(generator.choice([0, 1, 127, 128, 255, generator.integers(0, 256)]))
        damaged[generator.integers(0, min(len(data), 200))] = value
    return bytes(damaged)


DAMAGES: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (
    *(flipped, truncated, spliced, repeated, edited),
)


def damaged_files() -> list[bytes]:
    whole = seeds()
    generator = np.random.default_rng(20240501)
    return [
        DAMAGES[number % len(DAMAGES)](whole[generator.integers(0, len(whole))], generator)
        for number in range(FILES)
    ]


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


@cache
def pipelines() -> dict[str, MultiCrop]:
    group = {"count": 2, "scale": [0.05, 1.0], "role": "global"}
    crops = [{**group, "size": 24}, {**group, "size": 10}]
    backends = ("reference", "compiled", "portable", "device")
    data: list[dict[str, Any]] = [{"crops": crops, "backend": name} for name in backends]
    return {each["backend"]: MultiCrop(build_config(MultiCrop.Config, each)) for each in data}


def outcome(data: bytes) -> str:
    """What became of a file, after a look at whatever came back."""
    try:
        pixels = decode_bytes(data)
    except BrokenImage as error:
        assert 0 < len(str(error)) < 160
        return "broken"
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    assert 0 < pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS
    key = SampleKey(0, 0, len(data))
    views = {name: make(pixels, key) for name, make in pipelines().items()}
    assert all(map(np.array_equal, views["compiled"], views["reference"]))
    assert all([view.shape[1] for view in made] == [24, 24, 10, 10] for made in views.values())
    return "image"


def agrees_with_pil(data: bytes) -> bool:
    """Whether a JPEG, however damaged, is what it is without simplejpeg."""
    results = []
    for decode in (decode_bytes, lambda content: decode_pil(io.BytesIO(content), None)):
        try:
            results.append(decode(data))
        except BrokenImage:
            results.append(np.zeros((0, 0, 3), dtype=np.uint8))
    return np.array_equal(*results)


def main() -> None:
    """The process of its own: every file, three times over, and what came of it as JSON."""
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    files = damaged_files()
    jpegs = [data for data in files if data[:3] == b"\xff\xd8\xff"]
    agreeing = sum(agrees_with_pil(data) for data in jpegs)
    counts = Counter(outcome(data) for data in files)
    before = resident_mb()
    for _ in range(PASSES_AFTER_WARM_UP):
        for data in files:
            outcome(data)
    grown = resident_mb() - before
    summary = {**counts, "jpegs": len(jpegs), "agreeing": agreeing, "grown_mb": grown}
    json.dump(summary, sys.stdout)


@pytest.mark.slow
def test_damaged_files_are_images_or_broken() -> None:
    tests = str(Path(__file__).parents[1])
    result = python("-X", "faulthandler", "-W", "error", __file__, before=tests)
    assert result.returncode == 0, result.stderr[-3000:]
    summary = json.loads(result.stdout)
    assert summary["image"] + summary["broken"] == FILES
    # The damage is neither too light nor too heavy to say anything.
    assert min(summary["image"], summary["broken"]) > FILES / 5
    assert summary["jpegs"] > FILES / 5
    assert summary["agreeing"] == summary["jpegs"]
    assert summary["grown_mb"] < LEAK_MB


if __name__ == "__main__":
    main()
