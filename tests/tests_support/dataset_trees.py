"""Data sets of a few tiny pictures, laid out on disk as the published ones are."""

from __future__ import annotations

import io
import json
import pickle
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from unlabeled.data.sources.voc07 import CLASSES


@cache
def picture(kind: str = "JPEG") -> bytes:
    """An image file of noise, which takes some bytes, so that a part of it can be missing."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    file = io.BytesIO()
    if kind == "mask":
        Image.fromarray(pixels[..., 0] % 3, mode="P").save(file, "PNG")
    else:
        Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def put(root: Path, *names: str, text: str | None = None) -> None:
    """Files with this text, or else pictures."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        kind = "mask" if name.startswith("Annotations") else "JPEG"
        (root / name).write_bytes(picture(kind) if text is None else text.encode())


def imagenet(root: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        for wnid in ("n01440764", "n01443537"):
            put(root, *(f"{split}/{wnid}/{number}.JPEG" for number in range(count)))


def inat18(root: Path) -> None:
    for split, first in (("train", 0), ("val", 3)):
        names = [f"train_val2018/Plantae/{i}/a, {i}.jpg" for i in range(first, first + 3)]
        put(root, *names)
        images = [{"id": 70 + i, "file_name": name} for i, name in enumerate(names, first)]
        # In another order than the images, as nothing promises the same one.
        known = [{"image_id": each["id"], "category_id": 5 - i} for i, each in enumerate(images)]
        lists = json.dumps({"images": images, "annotations": known[::-1]})
        put(root, f"{split}2018.json", text=lists)


def places205(root: Path) -> None:
    for split in ("train", "val"):
        lines = [f"a/abbey/{split} {number}.jpg {number}" for number in range(3)]
        put(root, *(line.rpartition(" ")[0] for line in lines))
        put(root, f"{split}_places205.csv", text="\n".join(lines) + "\n")


def voc(root: Path) -> None:
    for year, splits in ((2007, ("trainval", "test")), (2012, ("train", "val", "trainval"))):
        for number, split in enumerate(splits):
            name, lists = f"00000{number}", f"VOC{year}/ImageSets/Main"
            put(root, f"VOC{year}/JPEGImages/{name}.jpg")
            put(root, f"VOC{year}/Annotations/{name}.xml", text="<annotation/>")
            put(root, f"{lists}/{split}.txt", text=f"{name}\n")
            put(root, *(f"{lists}/{each}_{split}.txt" for each in CLASSES), text=f"{name} 1\n")


def coco(root: Path) -> None:
    for split in ("train2017", "val2017"):
        images = [{"id": number, "file_name": f"{number:012}.jpg"} for number in range(3)]
        put(root, *(f"{split}/{each['file_name']}" for each in images))
        content = {"images": images, "annotations": [{"image_id": 2}], "categories": [{}]}
        put(root, f"annotations/instances_{split}.json", text=json.dumps(content))


def landmarks_truth() -> bytes:
    query = {"bbx": [0.0, 0.0, 9.0, 9.0], "easy": [0], "hard": [1], "junk": []}
    return pickle.dumps({"imlist": ["a_0", "a_1"], "qimlist": ["q"], "gnd": [query]}, 2)


def revisited(root: Path) -> None:
    for name in ("roxford5k", "rparis6k"):
        put(root, *(f"{name}/jpg/{image}.jpg" for image in ("a_0", "a_1", "q")))
        (root / name / f"gnd_{name}.pkl").write_bytes(landmarks_truth())


def copydays(root: Path) -> None:
    put(root, *(f"original/200{number}00.jpg" for number in range(3)))
    put(root, *(f"strong/200{number}01.jpg" for number in range(3)))


def davis(root: Path) -> None:
    for split, videos in (("train", ("bear",)), ("val", ("bike", "camel"))):
        put(root, f"ImageSets/2017/{split}.txt", text="".join(f"{name}\n" for name in videos))
        for name in videos:
            put(root, *(f"JPEGImages/480p/{name}/{number:05}.jpg" for number in range(3)))
            put(root, *(f"Annotations/480p/{name}/{number:05}.png" for number in range(3)))


def folder(root: Path) -> None:
    for split in ("train", "val"):
        put(root, *(f"{split}/{kind}/{number}.jpg" for kind in ("ant", "bee") for number in (0, 1)))
