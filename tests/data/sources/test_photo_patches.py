from __future__ import annotations

import time

import numpy as np
import pytest
from PIL import Image

from unlabeled.config.check import build_config
from unlabeled.data.sources import photo_patches
from unlabeled.data.sources.photo_patches import PICTURES, PhotoPatches
from unlabeled.errors import ConfigError, DataError, EnvironmentProblem


@pytest.fixture(scope="module")
def train() -> PhotoPatches:
    return PhotoPatches(PhotoPatches.Config(), split="train")


@pytest.fixture(scope="module")
def test() -> PhotoPatches:
    return PhotoPatches(PhotoPatches.Config(), split="test")


def test_200_and_60_patches_of_each_of_20_photographs(
    train: PhotoPatches, test: PhotoPatches
) -> None:
    for source, count in ((train, 200), (test, 60)):
        assert source.num_classes == 20 and len(source) == 20 * count
        assert source.labels is not None and np.bincount(source.labels).tolist() == [count] * 20
        assert source.image(7).shape == (32, 32, 3) and source.image(7).dtype == np.uint8


def test_the_patches_are_these(train: PhotoPatches, test: PhotoPatches) -> None:
    """Results are compared across machines and versions: a seed always cuts the same patches."""
    again = PhotoPatches(PhotoPatches.Config(), split="train")
    assert np.array_equal(again.images, train.images)
    other = PhotoPatches(PhotoPatches.Config(seed=1), split="train")
    assert not np.array_equal(other.images, train.images)
    assert train.fingerprint() != test.fingerprint()
    assert abs(train.images.mean() - 107.639) < 0.05 and abs(test.images.mean() - 111.735) < 0.05


def test_no_pixel_is_in_both_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a picture whose red is the column, patches show what columns they were cut from."""

    def columns(name: str) -> np.ndarray:
        array = np.zeros((120, 300, 3), dtype=np.uint8)
        array[:, :, 0] = np.arange(300) % 250
        array[:, :, 1] = np.arange(300) // 250 * 255
        return array

    monkeypatch.setattr(photo_patches, "_photograph", columns)
    config = PhotoPatches.Config(min_side=32, max_side=32, train_per_picture=300)  # no resizing
    seen = {}
    for split in ("train", "test"):
        images = PhotoPatches(config, split=split).images.astype(int)  # type: ignore[arg-type]
        places = images[..., 0] + np.where(images[..., 1] > 0, 250, 0)
        seen[split] = (places.min(), places.max())
    assert seen == {"train": (0, 194), "test": (200, 299)}  # 0.65 * 300 = 195, 0.6667 * 300 = 200


def test_sides_are_limited_to_what_fits_and_refused_below_min_side(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = np.random.default_rng(0).integers(0, 256, (60, 150, 3), dtype=np.uint8)
    monkeypatch.setattr(photo_patches, "_photograph", lambda name: small)
    assert len(PhotoPatches(PhotoPatches.Config(), split="test")) == 1200  # 50 columns, 60 rows
    narrow = PhotoPatches.Config(test_region=(0.8, 1.0))
    with pytest.raises(DataError, match=r"min_side=48 px does not fit into columns 120..150 of"):
        PhotoPatches(narrow, split="test")


@pytest.mark.slow
def test_every_side_between_the_limits_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    # A picture of one-pixel columns: a patch of side s resized to 1 x 1 is the mean of its columns,
    # so the smallest possible mean belongs to the smallest side at the left border.
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 200, axis=0).repeat(3, axis=2)
    monkeypatch.setattr(photo_patches, "_photograph", lambda name: ramp)
    config = PhotoPatches.Config(
        image_size=1, min_side=10, max_side=12, train_per_picture=2000, train_region=(0.0, 0.06)
    )
    means = PhotoPatches(config, split="train").images[..., 0].ravel()
    assert set(means.tolist()) <= set(range(4, 8)) and len(set(means.tolist())) > 1


@pytest.mark.slow
def test_building_is_fast() -> None:
    started = time.process_time()
    PhotoPatches(PhotoPatches.Config(), split="train")
    assert time.process_time() - started < 2


@pytest.mark.slow
def test_neighbours_in_raw_pixels_know_the_photograph_less_than_half_the_time(
    train: PhotoPatches, test: PhotoPatches
) -> None:
    """20-NN by cosine on centred pixels: 41 % when the data set was made, chance is 5 %."""

    def features(source: PhotoPatches) -> np.ndarray:
        flat = source.images.reshape(len(source), -1).astype(np.float32)
        flat -= flat.mean(axis=1, keepdims=True)
        return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)

    assert train.labels is not None and test.labels is not None
    similarity = features(test) @ features(train).T  # [1200, 4000]
    nearest = np.argsort(-similarity, axis=1)[:, :20]
    votes = np.exp(np.take_along_axis(similarity, nearest, axis=1) / 0.07)
    scores = np.zeros((len(test), 20))
    for row in range(len(test)):
        np.add.at(scores[row], train.labels[nearest[row]], votes[row])
    accuracy = (scores.argmax(axis=1) == test.labels).mean()
    assert 0.38 < accuracy < 0.44


def test_missing_photographs_name_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PICTURES, "astronaut", ("no_such_package", "data/astronaut.png"))
    with pytest.raises(EnvironmentProblem, match="pip install --upgrade scikit-image scikit-learn"):
        PhotoPatches(PhotoPatches.Config(), split="train")
    monkeypatch.setitem(PICTURES, "astronaut", ("skimage", "data/gone.png"))
    with pytest.raises(EnvironmentProblem, match=r"gone\.png: no such file"):
        PhotoPatches(PhotoPatches.Config(), split="train")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_side": 20}, "max_side: must be at least min_side=48, got 20"),
        ({"test_region": [0.9, 0.8]}, "test_region: must be shares"),
        ({"image_size": 0}, "image_size: must be 1 or more"),
    ],
)
def test_impossible_values_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(PhotoPatches.Config, fields)


def test_a_patch_is_an_antialiased_resize_of_what_it_was_cut_from(train: PhotoPatches) -> None:
    # Nearest-neighbour cuts of fine texture keep its full contrast; averaging halves it at least.
    assert train.labels is not None
    grass = train.images[train.labels == train.classes.index("grass")].astype(float)
    photograph = Image.fromarray(photo_patches._photograph("grass"))
    assert grass.std() < 0.9 * np.asarray(photograph, dtype=float).std()
