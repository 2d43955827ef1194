"""Which classes the images of a split show, one label an image or several."""

from __future__ import annotations

import numpy as np

from unlabeled.data.sources.base import Source
from unlabeled.errors import DataError
from unlabeled.evaluation.benchmarks.base import Probe, require_equal_classes
from unlabeled.evaluation.features import FeatureSet


def require_presence(probe: Probe) -> None:
    """DataError unless both splits say which classes their images show, and of the same classes."""
    for split, source in (("train", probe.train), ("test", probe.test)):
        if source.labels is None and source.multi_labels is None:
            raise DataError(
                f"the {split} split has no labels, which this benchmark needs; choose a labelled "
                "data set for evaluation with dataset=..."
            )
    require_equal_classes(probe)
    if len(probe.train.classes) < 2:
        raise DataError(
            f"the data set has {len(probe.train.classes)} class and nothing to tell it from; "
            "choose one with two classes or more"
        )


def shown_classes(shown: np.ndarray) -> list[int]:
    """The classes that a test image shows, of a table int8 [n, C]; DataError if there is none."""
    found = [number for number in range(shown.shape[1]) if (shown[:, number] == 1).any()]
    if not found:
        raise DataError("no test image shows any class; the test split has no use as it is")
    return found


def presence(source: Source, rows: FeatureSet) -> np.ndarray:
    """int8 [N, C] for the rows of features: 1 shown, -1 not shown, 0 undecided.

    Where an image has one label it shows this class and no other.
    """
    indices = rows.indices.numpy()
    if source.multi_labels is not None:
        chosen: np.ndarray = source.multi_labels[indices]
        return chosen
    assert source.labels is not None
    shown = np.full((len(indices), len(source.classes)), -1, dtype=np.int8)
    shown[np.arange(len(indices)), source.labels[indices]] = 1
    return shown
