"""JPEG files to measure with: crops of the photographs inside the scikit-image and -learn wheels.

    python dev/photographs.py FOLDER [--count 200]

500 x 375 and 375 x 500, the shape of most of ImageNet. Each crop is encoded at the quality between
88 and 96 that comes nearest to 100 KB, which is what ImageNet's files weigh on average.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_image

SIDES = ((500, 375), (375, 500))
TARGET_BYTES = 100_000
QUALITIES = (88, 90, 92, 94, 96)


def photographs() -> list[np.ndarray]:
    """RGB uint8 [h, w, 3] of the coloured pictures that hold a crop of either shape."""
    inside = (
        "astronaut",
        "coffee",
        "rocket",
        "hubble_deep_field",
        "retina",
        "immunohistochemistry",
    )
    pictures = [np.asarray(getattr(data, name)()) for name in inside]
    pictures += [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    # The pictures that are less than 500 px in one direction are enlarged by a third.
    return [
        picture if min(picture.shape[:2]) >= 500 else _enlarged(picture) for picture in pictures
    ]


def _enlarged(picture: np.ndarray) -> np.ndarray:
    image = Image.fromarray(picture)
    size = (image.width * 4 // 3, image.height * 4 // 3)
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS))


def jpegs(count: int, seed: int = 0) -> list[bytes]:
    """`count` files, the largest half of twice as many random crops: smooth ones are left out."""
    generator = np.random.default_rng(seed)
    pictures = photographs()
    files = []
    for number in range(2 * count):
        picture = Image.fromarray(pictures[number % len(pictures)])
        width, height = SIDES[number // len(pictures) % 2]
        left = int(generator.integers(picture.width - width + 1))
        top = int(generator.integers(picture.height - height + 1))
        files.append(_encoded(picture.crop((left, top, left + width, top + height))))
    return sorted(files, key=len, reverse=True)[:count]


def _encoded(image: Image.Image) -> bytes:
    """The encoding that comes nearest to the target."""
    found = []
    for quality in QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        found.append(buffer.getvalue())
    return min(found, key=lambda encoded: abs(len(encoded) - TARGET_BYTES))


def main() -> None:
    """Write the files into a folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=200)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    files = jpegs(arguments.count)
    for number, encoded in enumerate(files):
        (arguments.folder / f"{number:04}.jpg").write_bytes(encoded)
    print(f"{len(files)} files, {np.mean([len(file) for file in files]) / 1000:.0f} KB on average")


if __name__ == "__main__":
    main()
