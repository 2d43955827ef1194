from __future__ import annotations

import logging
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests_support.loading import loading
from tests_support.probes import SIDE, Blobs, Pixels, Whole, flatten, unit_range
from tests_support.ranks import run_ranks
from unlabeled.data.types import ViewSpec
from unlabeled.errors import ConfigError, DataError
from unlabeled.evaluation import features
from unlabeled.evaluation.features import FeatureSet, extract


def source(count: int, broken: frozenset[int] = frozenset()) -> Pixels:
    drawn = Blobs(classes=3, spread=20).draw(count, seed=1)
    drawn.broken = broken
    return drawn


def extracted(images: Pixels, batch_size: int = 4, workers: int = 0) -> FeatureSet:
    return extract(
        flatten,
        images,
        Whole(),
        normalize=unit_range,
        device=torch.device("cpu"),
        batch_size=batch_size,
        loader=loading(workers),
    )


def naive(images: Pixels) -> Tensor:
    """Pixels in reading order, row by row."""
    rows = []
    for index in range(len(images)):
        pixels = images.images[index].astype(np.float32) / 127.5 - 1
        rows.append(torch.from_numpy(np.concatenate([pixels[..., c].ravel() for c in range(3)])))
    return torch.stack(rows)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("workers", [0, 2])
def test_rows_are_the_images_in_order(batch_size: int, workers: int) -> None:
    images = source(11)
    found = extracted(images, batch_size, workers)
    torch.testing.assert_close(found.features, naive(images))
    assert found.indices.tolist() == list(range(11)) and len(found) == 11
    assert images.labels is not None and found.labels is not None
    assert found.labels.tolist() == images.labels.tolist()
    assert found.names(images)[7] == "image-7"


def test_broken_images_are_left_out_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    images = source(11, broken=frozenset({0, 6, 10}))
    with caplog.at_level(logging.WARNING):
        found = extracted(images)
    left = [1, 2, 3, 4, 5, 7, 8, 9]
    assert found.indices.tolist() == left
    assert found.features.equal(extracted(source(11)).features[left])
    assert images.labels is not None and found.labels is not None
    assert found.labels.tolist() == images.labels[left].tolist()
    assert "3 of 11 images left out" in caplog.text and "image-0 (truncated)" in caplog.text


def on_ranks(count: int, broken: frozenset[int], gather_rows: int) -> tuple[Tensor, Tensor, Tensor]:
    features.GATHER_ROWS = gather_rows
    found = extracted(source(count, broken))
    assert found.labels is not None
    return found.features, found.indices, found.labels


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "broken"),
    [(12, ()), (11, ()), (11, (0, 1, 9)), (1, ()), (6, (0, 1, 2))],
    ids=["equal shares", "unequal", "broken", "one rank without images", "one rank all broken"],
)
def test_two_ranks_gather_what_one_extracts(count: int, broken: tuple[int, ...]) -> None:
    alone = extracted(source(count, frozenset(broken)))
    for gather_rows in (8192, 2):
        for rows, indices, labels in run_ranks(on_ranks, 2, count, frozenset(broken), gather_rows):
            assert rows.equal(alone.features)
            assert indices.equal(alone.indices)
            assert alone.labels is not None and labels.equal(alone.labels)


def test_model_and_random_state_stay_as_they_are() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Dropout(0.5))
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    for workers in (0, 1):
        found = extract(
            model,
            source(9),
            Whole(),
            normalize=unit_range,
            device=torch.device("cpu"),
            batch_size=4,
            loader=loading(workers),
            channels_last=True,
        )
        assert found.features.shape == (9, 5 * (SIDE - 2) ** 2)
        assert not found.features.requires_grad
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert torch.get_rng_state().equal(states[0])
    assert (np.random.get_state()[1] == states[1]).all() and random.getstate() == states[2]


def test_half_precision_features_become_float32_and_labels_may_be_missing() -> None:
    images = source(5)
    images.labels = None
    found = extract(
        lambda views: flatten(views).bfloat16(),
        images,
        Whole(),
        normalize=unit_range,
        device=torch.device("cpu"),
        batch_size=2,
        loader=loading(),
    )
    assert found.features.dtype == torch.float32 and found.labels is None


def test_what_cannot_be_used_is_named() -> None:
    with pytest.raises(DataError, match="none of the 3 images"):
        extracted(source(3, broken=frozenset(range(3))))
    settings = {"normalize": unit_range, "device": torch.device("cpu"), "loader": loading()}

    def diverged(images: Tensor) -> Tensor:
        rows = flatten(images).clone()
        rows[1, 0] = float("inf")
        return rows

    with pytest.raises(DataError, match=r"2 of 6 features are NaN.*image-1"):
        extract(diverged, source(6), Whole(), batch_size=3, **settings)  # type: ignore[arg-type]
    two = Whole()
    two.views = (ViewSpec(SIDE, "global"), ViewSpec(SIDE, "global"))
    with pytest.raises(ConfigError, match="emits 2 views"):
        extract(flatten, source(6), two, batch_size=3, **settings)  # type: ignore[arg-type]
