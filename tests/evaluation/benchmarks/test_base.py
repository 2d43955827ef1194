from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests_support.probes import Blobs, Pixels, flatten, make_probe
from unlabeled.errors import ConfigError, DataError
from unlabeled.evaluation.benchmarks.base import require_labels

BLOBS = Blobs(classes=3, spread=10)


def renamed(source: Pixels, *classes: str) -> Pixels:
    return Pixels(source.images, source.labels, classes)


def test_missing_labels_are_named_by_split() -> None:
    for split in ("train", "test"):
        sources = {"train": BLOBS.draw(6, 1), "test": BLOBS.draw(6, 2)}
        sources[split].labels = None
        with pytest.raises(DataError, match=f"the {split} split has no labels"):
            require_labels(make_probe(**sources))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("class-0", "class-1", "cat"), "only in train: class-2; only in test: cat"),
        (("class-0", "class-1"), "train has 3 classes and test has 2.*only in train: class-2"),
        (("class-1", "class-0", "class-2"), "the names are the same, their order differs"),
    ],
)
def test_differing_classes_are_named(classes: tuple[str, ...], message: str) -> None:
    train, test = BLOBS.draw(6, 1), renamed(BLOBS.draw(6, 2), *classes)
    with pytest.raises(DataError, match=message):
        require_labels(make_probe(train, test))
    require_labels(make_probe(train, renamed(test, *train.classes)))


def test_a_class_must_have_training_images_and_should_have_test_images(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Folders and lists name the classes of both splits together, so that the names agree."""
    train, test = BLOBS.draw(20, 1), BLOBS.draw(20, 2)
    assert train.labels is not None and test.labels is not None
    require_labels(make_probe(train, test))
    assert not caplog.text
    test.labels = test.labels.clip(1)
    require_labels(make_probe(train, test))
    assert "1 classes have no test image: class-0" in caplog.text
    train.labels = train.labels.clip(max=1)
    with pytest.raises(
        DataError, match=r"do, class-2 \(and no test image shows class-0\); a class"
    ):
        require_labels(make_probe(train, test))


@pytest.mark.parametrize(
    ("encode", "shape"),
    [(flatten, r"\[6, 48\] for 6 images, not \[6, 50\]"), (lambda x: x, r"\[6, 3, 4, 4\] for 6")],
)
def test_features_of_the_wrong_dimension_are_named(
    encode: Callable[[Tensor], Tensor], shape: str
) -> None:
    probe = make_probe(BLOBS.draw(6, 1), BLOBS.draw(6, 2), encode=encode, feature_dim=50)
    with pytest.raises(ConfigError, match=f"backbone: gives features of shape {shape}"):
        probe.features("train")


def test_features_are_extracted_once_and_not_mixed_up() -> None:
    seen: list[int] = []

    def encode(images: Tensor) -> Tensor:
        seen.append(len(images))
        return flatten(images)

    probe = make_probe(BLOBS.draw(7, 1), BLOBS.draw(5, 2), encode=encode)
    train, test = probe.features("train"), probe.features("test")
    assert (len(train), len(test)) == (7, 5)
    again = replace(probe, seed=1)  # another benchmark on the same weights
    assert again.features("train") is train and again.features("test") is test
    assert sum(seen) == 12
    other = replace(probe, train=BLOBS.draw(9, 3))  # another data set with the same cache
    assert len(other.features("train")) == 9
    same = replace(probe, test=probe.train)
    assert torch.equal(same.features("test").features, train.features)
    assert np.array_equal(same.features("test").labels, train.labels)
