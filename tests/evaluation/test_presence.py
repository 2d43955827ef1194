from __future__ import annotations

import numpy as np
import pytest

from tests_support.probes import Blobs, Pixels, make_probe
from unlabeled.errors import DataError
from unlabeled.evaluation.benchmarks.base import require_labels
from unlabeled.evaluation.presence import presence, require_presence

BLOBS = Blobs(classes=3, spread=10)


def several(source: Pixels, shown: np.ndarray) -> Pixels:
    """The same images with several labels each."""
    source.labels, source.multi_labels = None, shown
    return source


def test_one_label_is_that_class_alone() -> None:
    source = BLOBS.draw(7, 1)
    source.broken = frozenset({2})
    probe = make_probe(source, BLOBS.draw(5, 2))
    shown = presence(source, probe.features("train"))
    assert shown.dtype == np.int8 and set(shown.ravel().tolist()) == {-1, 1}
    assert source.labels is not None
    assert shown.argmax(axis=1).tolist() == np.delete(source.labels, 2).tolist()
    assert ((shown == 1).sum(axis=1) == 1).all()


def test_several_labels_follow_their_images() -> None:
    shown = np.random.default_rng(0).integers(-1, 2, (7, 3)).astype(np.int8)
    source = several(BLOBS.draw(7, 1), shown)
    source.broken = frozenset({0, 4})
    rows = make_probe(source, BLOBS.draw(5, 2)).features("train")
    assert rows.labels is None
    assert np.array_equal(presence(source, rows), shown[[1, 2, 3, 5, 6]])


def test_labels_are_asked_for_in_either_form() -> None:
    shown = np.ones((6, 3), dtype=np.int8)
    require_presence(make_probe(several(BLOBS.draw(6, 1), shown), BLOBS.draw(6, 2)))
    bare = BLOBS.draw(6, 2)
    bare.labels = None
    with pytest.raises(DataError, match="the test split has no labels"):
        require_presence(make_probe(BLOBS.draw(6, 1), bare))
    other = Pixels(bare.images, np.zeros(6, dtype=np.int64), ("class-0", "class-1", "cat"))
    with pytest.raises(DataError, match="only in train: class-2; only in test: cat"):
        require_presence(make_probe(BLOBS.draw(6, 1), other))
    one = Blobs(1, 10)
    with pytest.raises(DataError, match="has 1 class and nothing to tell it from"):
        require_presence(make_probe(one.draw(6, 1), one.draw(6, 2)))


def test_benchmarks_of_one_label_name_the_one_for_several() -> None:
    source = several(BLOBS.draw(6, 1), np.ones((6, 3), dtype=np.int8))
    assert source.num_classes == 0  # nothing to put a classifier of one label on
    with pytest.raises(DataError, match=r"train split may show several.*benchmark=svm"):
        require_labels(make_probe(source, BLOBS.draw(6, 2)))
