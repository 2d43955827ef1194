from __future__ import annotations

import numpy as np
import pytest

from unlabeled.config.check import build_config
from unlabeled.data.sources.synthetic import Synthetic
from unlabeled.errors import ConfigError


def build(split: str = "train", **fields: int) -> Synthetic:
    return Synthetic(build_config(Synthetic.Config, fields), split=split)  # type: ignore[arg-type]


def test_sizes_labels_and_names() -> None:
    source = build(num_samples=25, num_classes=4, image_size=20)
    assert len(source) == 25 and source.num_classes == 4
    assert source.labels is not None and source.labels.tolist() == [i % 4 for i in range(25)]
    assert source.image(3).shape == (20, 20, 3) and source.image(3).dtype == np.uint8
    assert len({source.name(i) for i in range(25)}) == 25
    assert len(build("test", num_test_samples=7)) == 7


def test_an_image_is_a_function_of_its_index_and_split() -> None:
    one, other, test = build(), build(), build("test")
    images = [one.image(i).tobytes() for i in range(20)]
    assert images == [other.image(i).tobytes() for i in range(20)]
    assert len({*images, *(test.image(i).tobytes() for i in range(20))}) == 40
    assert build(seed=1).image(0).tobytes() != images[0]
    assert build(num_samples=5).image(3).tobytes() == images[3]


def test_classes_are_learnable() -> None:
    """The nearest class mean of the brightest colour tells ten hues apart far above chance."""
    train, test = build(num_samples=300), build("test", num_test_samples=100)

    def features(source: Synthetic) -> np.ndarray:
        images = np.stack([source.image(i) for i in range(len(source))]).astype(float)
        weights = images.max(axis=3, keepdims=True) ** 4
        return (images * weights).sum(axis=(1, 2)) / weights.sum(axis=(1, 2))  # [N, 3]

    assert train.labels is not None and test.labels is not None
    x = features(train)
    means = np.stack([x[train.labels == label].mean(axis=0) for label in range(10)])
    distances = ((features(test)[:, None] - means) ** 2).sum(axis=2)
    assert (distances.argmin(axis=1) == test.labels).mean() > 0.8


def test_every_class_draws_a_shape() -> None:
    source = build(num_classes=12)
    for index in range(12):
        bright = source.image(index).max(axis=2) == 255
        assert 0.01 < bright.mean() < 0.5


def test_counts_are_positive() -> None:
    with pytest.raises(ConfigError, match="num_classes: must be 1 or more, got 0"):
        build(num_classes=0)
