"""Handwritten digits that come with scikit-learn: 1,797 images of 8 x 8 pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from unlabeled.data.sampling.permutation import Permutation
from unlabeled.data.sources.arrays import ArraySource
from unlabeled.data.sources.base import Split
from unlabeled.data.sources.installed_files import installed_file
from unlabeled.errors import EnvironmentProblem
from unlabeled.registry import register


@register("dataset", "digits")
class Digits(ArraySource):
    """The UCI digits, 8 x 8 grey (0..16 scaled to 0..255) in three equal channels, ten classes.

    The split is stratified: of every class the same share, chosen by `seed`, is for testing.
    EnvironmentProblem if scikit-learn is missing; it is not imported, which would take a second.
    Reference: sklearn.datasets.load_digits.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        test_fraction: float = 0.25
        """Share of every class that is held out for testing."""
        seed: int = 0
        """Which images are held out; the run's own seed does not change the data set."""

        def problems(self) -> Iterator[tuple[str, str]]:
            if not 0 < self.test_fraction < 1:
                yield "test_fraction", f"must lie between 0 and 1, got {self.test_fraction}"

    def __init__(self, config: Config, *, split: Split) -> None:
        grey, labels = _digits()
        held_out = np.zeros(len(labels), dtype=bool)
        for label in range(10):
            members = np.flatnonzero(labels == label)
            order = Permutation(len(members), config.seed, label)(np.arange(len(members)))
            held_out[members[order[: round(config.test_fraction * len(members))]]] = True
        chosen = held_out if split == "test" else ~held_out
        pixels = np.rint(grey[chosen].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
        names = tuple(str(label) for label in range(10))
        super().__init__(np.repeat(pixels, 3, axis=3), labels[chosen], names, f"digits/{split}")


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """[1797, 64] in 0..16 and [1797], as load_digits has them."""
    path = installed_file("sklearn", "datasets/data/digits.csv.gz")
    fault = "scikit-learn is not installed"
    if path is not None:
        try:
            table = np.loadtxt(path, delimiter=",", dtype=np.int64)
            return table[:, :-1], table[:, -1]
        except OSError as error:
            fault = str(error)
    raise EnvironmentProblem(
        f"digits come with scikit-learn, but {fault}; pip install --upgrade scikit-learn"
    )
