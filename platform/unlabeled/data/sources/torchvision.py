"""Any data set of torchvision.datasets, by its class name."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unlabeled.data.decode import BrokenImage, rgb_array
from unlabeled.data.sources.base import Source, Split
from unlabeled.errors import DataError
from unlabeled.registry import register


@register("dataset", "torchvision")
class Torchvision(Source):
    """A data set of torchvision: `dataset: CIFAR10` is torchvision.datasets.CIFAR10.

    Splits are chosen through the class's own argument: `train=` or, with the values `train_split`
    and `test_split`, `split=`. Labels are those that the class keeps in memory (`targets`, `labels`
    or `samples`); a set that reads labels along with its images has none here.
    DataError: no such data set, one that needs more than these fields, files that are not there.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        dataset: str
        """Class name in torchvision.datasets, for example CIFAR10."""
        root: str
        """Folder of the files; ~ is expanded."""
        download: bool = False
        """Fetch the files if they are not there."""
        train_split: str = "train"
        """What the set calls its training split (STL10: train, unlabeled or train+unlabeled)."""
        test_split: str = "test"
        """What the set calls its test split (ImageNet: val)."""

    def __init__(self, config: Config, *, split: Split) -> None:
        cls = _dataset_class(config.dataset)
        arguments = _arguments(cls, config, split)
        try:
            self._dataset = cls(**arguments)
        except (RuntimeError, OSError, ValueError, ImportError) as error:
            hint = "" if config.download or not _takes(cls, "download") else "; or download=true"
            raise DataError(
                f"torchvision's {config.dataset} in {config.root}: "
                f"{_what_is_wrong(cls, Path(config.root).expanduser()) or _one_line(error)} "
                f"(put its files there{hint})"
            ) from error
        self._prefix = f"{config.dataset}/{split}"
        self.labels = _labels(self._dataset)
        if self.labels is not None:
            self.classes = _classes(self._dataset, int(self.labels.max()) + 1)

    def __len__(self) -> int:
        return len(self._dataset)

    def image(self, index: int) -> np.ndarray:
        try:
            item = self._dataset[index]
        except (OSError, SyntaxError, ValueError) as error:
            raise BrokenImage(str(error)) from error
        return rgb_array(item[0])

    def name(self, index: int) -> str:
        """The set, the split and the place in it."""
        return f"{self._prefix}/{index}"


def _dataset_class(name: str) -> Any:
    import torchvision.datasets

    entries = {name: getattr(torchvision.datasets, name) for name in torchvision.datasets.__all__}
    base = torchvision.datasets.VisionDataset
    known = {
        key: entry
        for key, entry in entries.items()
        if isinstance(entry, type) and issubclass(entry, base)
    }
    if name in known:
        return known[name]
    by_lower = {entry.lower(): entry for entry in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3)
    hint = f" Did you mean {' or '.join(by_lower[entry] for entry in close)}?" if close else ""
    raise DataError(f"dataset: torchvision has no data set {name!r}.{hint}")


def _takes(cls: Any, argument: str) -> bool:
    return argument in inspect.signature(cls).parameters


def _arguments(cls: Any, config: Torchvision.Config, split: Split) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if _takes(cls, "root"):
        arguments["root"] = str(Path(config.root).expanduser())
    if _takes(cls, "download"):
        arguments["download"] = config.download
    if _takes(cls, "train"):
        arguments["train"] = split == "train"
    elif _takes(cls, "split"):
        arguments["split"] = config.train_split if split == "train" else config.test_split
    elif split == "test":
        raise DataError(f"torchvision's {config.dataset} has no test split")
    empty = inspect.Parameter.empty
    parameters = inspect.signature(cls).parameters.items()
    missing = [n for n, p in parameters if p.default is empty and n not in arguments]
    missing = [n for n in missing if n not in ("args", "kwargs")]
    if missing:
        raise DataError(
            f"torchvision's {config.dataset} needs {', '.join(missing)}, which a config cannot "
            "give; list its images for the file_list or csv data set instead"
        )
    return arguments


def _what_is_wrong(cls: Any, root: Path) -> str:
    """The files that are missing or not as published, where the class says what it wants."""
    if hasattr(cls, "train_list"):  # CIFAR, STL10
        lists = [*cls.train_list, *cls.test_list]
        wanted = {f"{cls.base_folder}/{name}": md5 for name, md5 in lists}
    elif hasattr(cls, "resources"):  # MNIST and its relatives
        raw = f"{cls.__name__}/raw"
        wanted = {f"{raw}/{name.removesuffix('.gz')}": None for name, _ in cls.resources}
    else:
        return ""
    from torchvision.datasets.utils import check_integrity

    missing = [name for name in wanted if not (root / name).is_file()]
    other = [
        name
        for name, md5 in wanted.items()
        if name not in missing and not check_integrity(root / name, md5)
    ]
    said = [
        f"{len(names)} of its {len(wanted)} files are {what}: {', '.join(names)}"
        for names, what in ((missing, "missing"), (other, "cut short or others than published"))
        if names
    ]
    return "; ".join(said)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _labels(dataset: Any) -> np.ndarray | None:
    """Class numbers without reading images, from wherever this class of torchvision keeps them."""
    values = None
    for attribute in ("targets", "labels", "_labels"):
        values = getattr(dataset, attribute, values)
    for attribute in ("samples", "_samples"):
        if values is None and hasattr(dataset, attribute):
            values = [item[1] for item in getattr(dataset, attribute)]
    if values is None or len(values) != len(dataset):
        return None
    labels = np.asarray(values)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.size == 0 or labels.min() < 0:
        return None
    return labels.astype(np.int64)


def _classes(dataset: Any, at_least: int) -> tuple[str, ...]:
    names = getattr(dataset, "classes", ())
    if len(names) < at_least:
        return tuple(str(number) for number in range(at_least))
    return tuple(name if isinstance(name, str) else ", ".join(name) for name in names)
