"""Tiny detection data sets of real pixels: patches of some photographs pasted onto others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

BACKGROUNDS = ("grass", "gravel", "brick")
"""Grey textures."""
CLASSES = {"coffee": (60, 150), "chelsea": (40, 120), "rocket": (250, 100)}
"""Class, which is the photograph that a patch is cut from, and where (top, left)."""
CUT = 120
"""Side of what is cut out of the photograph, before it is resized to the pasted size."""


@dataclass(frozen=True)
class Box:
    """Pixels left..right - 1 and top..bottom - 1."""

    name: str
    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Picture:
    """RGB uint8 [side, side, 3] and what was pasted onto it."""

    pixels: np.ndarray
    boxes: list[Box]


def pictures(count: int, seed: int, side: int = 96) -> list[Picture]:
    """`count` textures with one or two patches each, which do not overlap."""
    random = np.random.default_rng(seed)
    return [_picture(number, random, side) for number in range(count)]


def _picture(number: int, random: np.random.Generator, side: int) -> Picture:
    ground = getattr(data, BACKGROUNDS[number % len(BACKGROUNDS)])()
    top, left = random.integers(0, 512 - side, 2)
    pixels = np.repeat(ground[top : top + side, left : left + side, None], 3, axis=2).copy()
    names = [list(CLASSES)[number % len(CLASSES)]]
    if number % 2:
        names.append(list(CLASSES)[(number + 1) % len(CLASSES)])
    boxes = []
    for half, name in enumerate(names):  # the left half, then the right one
        size = int(random.integers(side // 3, side // 2 - 2))
        x = half * side // 2 + int(random.integers(0, side // 2 - size))
        y = int(random.integers(0, side - size))
        pixels[y : y + size, x : x + size] = patch(name, size)
        boxes.append(Box(name, x, y, x + size, y + size))
    return Picture(pixels, boxes)


def patch(name: str, size: int) -> np.ndarray:
    """The piece of a photograph that stands for its class: uint8 [size, size, 3]."""
    top, left = CLASSES[name]
    cut = getattr(data, name)()[top : top + CUT, left : left + CUT]
    return np.asarray(Image.fromarray(cut).resize((size, size), Image.Resampling.BILINEAR))


def write_voc(root: Path, name: str, pictures: Sequence[Picture]) -> None:
    """A split such as 2007_trainval, beside those that are there."""
    year, _, listed = name.partition("_")
    folder = root / f"VOC{year}"
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture.pixels).save(
            folder / "JPEGImages" / f"{listed}{number:03}.jpg", quality=95
        )
        (folder / "Annotations" / f"{listed}{number:03}.xml").write_text(_xml(picture))
    names = "".join(f"{listed}{number:03}\n" for number in range(len(pictures)))
    (folder / "ImageSets" / "Main" / f"{listed}.txt").write_text(names)


def _xml(picture: Picture) -> str:
    """VOC counts pixels from 1, and xmax is inside."""
    height, width = picture.pixels.shape[:2]
    objects = "".join(
        f"<object><name>{box.name}</name><pose>Frontal</pose><truncated>0</truncated>"
        f"<difficult>0</difficult><bndbox><xmin>{box.left + 1}</xmin><ymin>{box.top + 1}</ymin>"
        f"<xmax>{box.right}</xmax><ymax>{box.bottom}</ymax></bndbox></object>"
        for box in picture.boxes
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{size}{objects}</annotation>"


def write_coco(root: Path, name: str, pictures: Sequence[Picture]) -> None:
    """A split such as train2017; category numbers have gaps, as COCO's own have."""
    (root / name).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    numbers = {each: 10 * place + 3 for place, each in enumerate(CLASSES)}
    images, annotations = [], []
    for number, picture in enumerate(pictures):
        file = f"{number:012}.jpg"
        Image.fromarray(picture.pixels).save(root / name / file, quality=95)
        height, width = picture.pixels.shape[:2]
        images.append({"id": number, "file_name": file, "height": height, "width": width})
        for box in picture.boxes:
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "iscrowd": 0, **_coco(box)}
                | {"category_id": numbers[box.name]}
            )
    categories = [{"id": number, "name": each} for each, number in numbers.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(content))


def _coco(box: Box) -> dict[str, object]:
    """Left, top, width and height, and the rectangle as a polygon."""
    width, height = box.right - box.left, box.bottom - box.top
    corners = [box.left, box.top, box.right, box.top, box.right, box.bottom, box.left, box.bottom]
    area = width * height
    return {"bbox": [box.left, box.top, width, height], "segmentation": [corners], "area": area}
