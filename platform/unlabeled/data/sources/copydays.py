"""INRIA Copydays: find the original of a picture that was changed."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unlabeled.data.decode import decode_file
from unlabeled.data.sources.base import Split
from unlabeled.data.sources.folder import Folder
from unlabeled.data.sources.paths import PathList
from unlabeled.data.sources.queries import QuerySource, Relevance
from unlabeled.data.sources.roots import existing_folder
from unlabeled.errors import DataError
from unlabeled.registry import register

logger = logging.getLogger(__name__)

# Copies of a picture begin with the same digits: 200001.jpg is made from 200000.jpg.
PREFIX = 4
ORIGINALS = 157
LAYOUT = (
    "expected below root: original/*.jpg (157 pictures) and strong/*.jpg (229), or crops/<share> "
    "and jpegqual/<quality>, each from an archive of its own; extra_scripts/prepare_copydays.py "
    "names all that is missing"
)


@register("dataset", "copydays")
class Copydays(QuerySource):
    """The originals, with distractors if given, as train split; changed copies as test split.

    A copy should find the originals whose names begin with its own first four characters.
    DataError: a folder or the original of a copy is missing. Fewer originals than Copydays has are
    logged.
    Reference: Douze et al., Evaluation of GIST descriptors for web-scale image search, CIVR 2009.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        root: str
        """Folder of original/ and of the copies; ~ is expanded."""
        queries: str = "strong"
        """The copies: strong, crops/10 to crops/80, or jpegqual/3 to jpegqual/75."""
        distractors: str | None = None
        """Folder of images that no query is a copy of (DINO: 10,000 of YFCC100M); null: none."""

    def __init__(self, config: Config, *, split: Split) -> None:
        root = existing_folder(config.root, "root", LAYOUT)
        originals = _pictures(root / "original")
        self._folder = root / ("original" if split == "train" else config.queries)
        self._names = PathList(originals if split == "train" else _pictures(self._folder))
        self._distractors: Folder | None = None
        if split == "train":
            if len(originals) < ORIGINALS:
                logger.warning("%s has %d of %d pictures", root, len(originals), ORIGINALS)
            if config.distractors is not None:
                folder = Folder.Config(root=config.distractors, labels="none")
                self._distractors = Folder(folder, split="train")
        else:
            self.relevance = tuple(
                _relevance(self._names[index], originals, root) for index in range(len(self._names))
            )

    def __len__(self) -> int:
        return len(self._names) + (0 if self._distractors is None else len(self._distractors))

    def image(self, index: int) -> np.ndarray:
        if index < len(self._names):
            return decode_file(self._folder / self._names[index], at_least=self.decode_at_least)
        assert self._distractors is not None
        return self._distractors.image(index - len(self._names))

    def name(self, index: int) -> str:
        """The file name, of a distractor the path below its folder."""
        if index < len(self._names):
            return self._names[index]
        assert self._distractors is not None
        return self._distractors.name(index - len(self._names))


def _pictures(folder: Path) -> list[str]:
    """Sorted names of the .jpg files in a folder."""
    found = os.listdir(folder) if folder.is_dir() else []
    names = sorted(name for name in found if name.lower().endswith(".jpg") and name[0] != ".")
    if not names:
        raise DataError(f"{folder} {'has no .jpg files' if found else 'is missing'}; {LAYOUT}")
    return names


def _relevance(copy: str, originals: list[str], root: Path) -> Relevance:
    places = [place for place, name in enumerate(originals) if name[:PREFIX] == copy[:PREFIX]]
    if not places:
        raise DataError(
            f"{root / 'original'} lacks {copy[:PREFIX]}*.jpg, the original of {copy}; {LAYOUT}"
        )
    nothing = np.empty(0, dtype=np.int64)
    return Relevance(np.array(places, dtype=np.int64), nothing, nothing)
