"""Revisited Oxford and Paris: 70 photographs of landmarks to find in a few thousand."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unlabeled.data.decode import decode_file
from unlabeled.data.sources.base import Split
from unlabeled.data.sources.paths import PathList
from unlabeled.data.sources.plain_pickle import read_plain_pickle
from unlabeled.data.sources.queries import QuerySource, Relevance
from unlabeled.data.sources.roots import existing_folder
from unlabeled.errors import DataError
from unlabeled.registry import register

KEYS = ("imlist", "qimlist", "gnd")
LAYOUT = (
    "expected below root: {0}/gnd_{0}.pkl (the ground truth of revisited Oxford and Paris) and "
    "{0}/jpg/*.jpg (the images of Oxford 5k or Paris 6k); extra_scripts/prepare_revisited.py names "
    "all that is missing"
)


@register("dataset", "revisited")
class Revisited(QuerySource):
    """ROxford5k or RParis6k: the train split is the database, the test split the queries.

    Layout: root/<landmarks>/jpg/*.jpg and root/<landmarks>/gnd_<landmarks>.pkl (or .json of the
    same content, which is preferred); root may be <landmarks> itself. The pickle is read as plain
    data: it cannot run anything. Names are those of the list without .jpg; of a cropped query the
    box is part of the name.
    DataError: the ground truth or an image is missing (with what and how many), or the ground truth
    is not of this form.
    Reference: Radenovic et al., arXiv:1803.11285.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        root: str
        """The folder that holds roxford5k or rparis6k; ~ is expanded."""
        landmarks: Literal["roxford5k", "rparis6k"] = "roxford5k"
        """Which of the two."""
        crop_queries: bool = False
        """Cut queries to the box of the landmark (Radenovic et al.), or take them whole (DINO)."""

    def __init__(self, config: Config, *, split: Split) -> None:
        folder, file = _find(config)
        truth = read_ground_truth(file)
        names = truth["imlist"] if split == "train" else truth["qimlist"]
        self._folder = folder / "jpg"
        _require_images(self._folder, names, config.landmarks)
        self._names = PathList(names)
        self._boxes: list[tuple[float, ...]] = []
        if split == "test":
            count = len(truth["imlist"])
            self.relevance = tuple(_relevance(each, count, file) for each in truth["gnd"])
            if config.crop_queries:
                self._boxes = [_box(each, file) for each in truth["gnd"]]

    def __len__(self) -> int:
        return len(self._names)

    def image(self, index: int) -> np.ndarray:
        path = self._folder / f"{self._names[index]}.jpg"
        pixels = decode_file(path, at_least=self.decode_at_least)
        if not self._boxes:
            return pixels
        left, top, right, bottom = (max(0, round(side)) for side in self._boxes[index])
        return np.ascontiguousarray(pixels[top : max(bottom, top + 1), left : max(right, left + 1)])

    def name(self, index: int) -> str:
        """The name in the list, with its box where one is cut out."""
        name = self._names[index]
        if not self._boxes:
            return name
        return f"{name} [{', '.join(f'{side:g}' for side in self._boxes[index])}]"


def _find(config: Revisited.Config) -> tuple[Path, Path]:
    """The folder of the landmarks, and the file of their ground truth."""
    layout = LAYOUT.format(config.landmarks)
    given = existing_folder(config.root, "root", layout)
    for folder in (given / config.landmarks, given):
        for ending in ("json", "pkl"):
            file = folder / f"gnd_{config.landmarks}.{ending}"
            if file.is_file():
                return folder, file
    raise DataError(
        f"root: {config.root} has no {config.landmarks}/gnd_{config.landmarks}.pkl; {layout}"
    )


def read_ground_truth(file: Path) -> dict[str, Any]:
    """The lists imlist, qimlist and gnd of a .pkl or .json; DataError if it is of another form."""
    if file.suffix == ".json":
        try:
            truth = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {file}: {error}") from error
    else:
        truth = read_plain_pickle(file)
    if not isinstance(truth, dict) or not all(isinstance(truth.get(key), list) for key in KEYS):
        raise DataError(f"{file} is no ground truth: it needs lists under {', '.join(KEYS)}")
    if len(truth["gnd"]) != len(truth["qimlist"]):
        raise DataError(
            f"{file} has {len(truth['qimlist'])} queries and what {len(truth['gnd'])} should find"
        )
    return truth


def _relevance(query: Any, count: int, file: Path) -> Relevance:
    try:
        kinds = [np.asarray(query[key], dtype=np.int64).ravel() for key in ("easy", "hard", "junk")]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: a query lacks numbers easy, hard or junk ({error})") from error
    places = np.concatenate(kinds)
    if len(np.unique(places)) < len(places) or not ((places >= 0) & (places < count)).all():
        raise DataError(f"{file}: a query names images twice or beyond the {count} there are")
    return Relevance(*kinds)


def _box(query: Any, file: Path) -> tuple[float, ...]:
    box: Sequence[float] = query.get("bbx", ())
    if len(box) != 4:
        raise DataError(f"{file}: a query has no box bbx of four numbers; set crop_queries=false")
    return tuple(float(side) for side in box)


def _require_images(folder: Path, names: list[str], landmarks: str) -> None:
    there = set(os.listdir(folder)) if folder.is_dir() else set()
    missing = [f"{name}.jpg" for name in names if f"{name}.jpg" not in there]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise DataError(
            f"{folder} lacks {len(missing)} of the {len(names)} images of {landmarks}: "
            f"{', '.join(missing[:5])}{more}; all images lie in it, without subfolders; "
            f"{LAYOUT.format(landmarks)}"
        )
