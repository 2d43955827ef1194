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
