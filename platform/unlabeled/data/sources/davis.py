"""DAVIS 2017: short videos in which every object is marked in every frame."""

from __future__ import annotations

import hashlib
import itertools
import os
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from unlabeled.data.decode import decode_file
from unlabeled.data.sources.base import Split
from unlabeled.data.sources.paths import PathList
from unlabeled.data.sources.roots import existing_folder
from unlabeled.data.sources.videos import VideoSource
from unlabeled.errors import DataError
from unlabeled.registry import register

LAYOUT = (
    "expected below root: ImageSets/2017/train.txt and val.txt, JPEGImages/480p/<video>/00000.jpg "
    "... and Annotations/480p/<video>/00000.png ... (DAVIS-2017-trainval-480p); "
    "extra_scripts/prepare_davis.py names all that is missing"
)


@register("dataset", "davis")
class Davis(VideoSource):
    """The frames of the train videos, and those of the val videos as test split.

    Videos in the order of ImageSets/2017/<split>.txt, frames by name; names are <video>/<frame>.
    DataError: a list, a video, a frame or a mask is missing (with what and how many), or a mask is
    no image of object numbers.
    Reference: Pont-Tuset et al., The 2017 DAVIS Challenge, arXiv:1704.00675.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        root: str
        """The folder DAVIS; ~ is expanded."""
        resolution: str = "480p"
        """The folder below JPEGImages and Annotations."""

    def __init__(self, config: Config, *, split: Split) -> None:
        root = existing_folder(config.root, "root", LAYOUT)
        listed = root / "ImageSets" / "2017" / ("train.txt" if split == "train" else "val.txt")
        self._frames = root / "JPEGImages" / config.resolution
        self._masks = root / "Annotations" / config.resolution
        try:
            names = listed.read_text(encoding="utf-8").split()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"cannot read {listed}: {reason}; {LAYOUT}") from error
        frames = [self._of(video) for video in names]
        if not frames:
            raise DataError(f"{listed} names no videos")
        ends = [0, *itertools.accumulate(len(each) for each in frames)]
        self.videos = tuple(itertools.starmap(range, itertools.pairwise(ends)))
        self._names = PathList(name for each in frames for name in each)

    def _of(self, video: str) -> list[str]:
        """The frames of a video, without ending; each has a mask."""
        found, masks = (
            {path.stem for path in folder.glob(f"{video}/*{ending}")}
            for folder, ending in ((self._frames, ".jpg"), (self._masks, ".png"))
        )
        if not found:
            raise DataError(f"{self._frames / video} has no frames; {LAYOUT}")
        if found != masks:
            odd = sorted(found ^ masks)
            raise DataError(
                f"{video} has {len(found)} frames and {len(masks)} masks; without partner: "
                f"{', '.join(odd[:5])}{', ...' if len(odd) > 5 else ''}; {LAYOUT}"
            )
        return [f"{video}/{name}" for name in sorted(found)]

    def __len__(self) -> int:
        return len(self._names)

    def image(self, index: int) -> np.ndarray:
        path = self._frames / f"{self._names[index]}.jpg"
        return decode_file(path, at_least=self.decode_at_least)

    def mask(self, index: int) -> np.ndarray:
        path = self._masks / f"{self._names[index]}.png"
        try:
            with Image.open(path, formats=["PNG"]) as picture:
                if picture.mode not in ("P", "L"):
                    raise DataError(f"{path} holds colours ({picture.mode}), not object numbers")
                return np.array(picture)
        except (OSError, UnidentifiedImageError) as error:
            raise DataError(f"cannot read {path}: {error}") from error

    def name(self, index: int) -> str:
        """<video>/<frame>."""
        return self._names[index]

    def fingerprint(self) -> str:
        """A short hash of names and of the sizes of the masks' files."""
        digest = hashlib.sha256(super().fingerprint().encode())
        for index in range(len(self)):
            size = os.stat(self._masks / f"{self._names[index]}.png").st_size
            digest.update(str(size).encode() + b",")
        return digest.hexdigest()[:16]
