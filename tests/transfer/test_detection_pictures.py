"""Training pictures come in an order, and with changes, that are functions of seed and step."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests_support.detection_sets import CLASSES, pictures, write_coco
from tests_support.ranks import run_ranks
from unlabeled.errors import DataError
from unlabeled.transfer.detection_data import detection_split
from unlabeled.transfer.detection_images import DetectionImages
from unlabeled.transfer.detection_objects import objects_of
from unlabeled.transfer.detection_pictures import Picture, TrainingPictures, ahead, flipped

COUNT = 5


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coco")
    write_coco(folder, "train2017", pictures(COUNT, seed=0, side=32))
    return folder


def training(root: str | Path, view: Any = flipped, chosen: Any = range(COUNT)) -> TrainingPictures:
    images = DetectionImages([detection_split("coco", str(root), "train2017")])
    objects = objects_of(images.splits[0], list(CLASSES))
    return TrainingPictures(images, objects, view, chosen=chosen, masks=True)


def seen(root: str | Path, steps: range, *, seed: int = 0, workers: int = 0) -> list[list[bytes]]:
    batches = training(root).batches(steps, batch_size=2, seed=seed, workers=workers)
    return [[picture.image.numpy().tobytes() for picture in batch] for batch in batches]


def test_a_pass_shows_each_picture_at_most_once_and_batches_are_full(root: Path) -> None:
    unchanged = training(root, view=lambda picture, draws: picture)
    assert unchanged.batch_length(2) == 2
    for number in range(3):
        steps = range(2 * number, 2 * number + 2)
        passed = [
            picture.image.numpy().tobytes()
            for batch in unchanged.batches(steps, batch_size=2, seed=0, workers=0)
            for picture in batch
        ]
        assert len(passed) == len(set(passed)) == 4


def test_few_pictures_are_repeated_within_a_batch(root: Path) -> None:
    unchanged = training(root, view=lambda picture, draws: picture, chosen=[3, 1])
    (batch,) = unchanged.batches(range(1), batch_size=5, seed=0, workers=0)
    assert len(batch) == 5 and len({each.image.numpy().tobytes() for each in batch}) == 2
    with pytest.raises(DataError, match="no training picture shows an object"):
        training(root, chosen=[])


def test_views_are_a_function_of_seed_and_step(root: Path) -> None:
    whole = seen(root, range(6))
    assert seen(root, range(3, 6)) == whole[3:]
    assert seen(root, range(6), workers=3) == whole
    assert seen(root, range(6), seed=1) != whole


def on_a_rank(root: str) -> list[list[bytes]]:
    return seen(root, range(4))


@pytest.mark.slow
def test_ranks_share_the_batches_of_one_process(root: Path) -> None:
    first, second = run_ranks(on_a_rank, 2, str(root))
    for one, other, both in zip(first, second, seen(root, range(4)), strict=True):
        assert [*one, *other] == both


def test_masks_and_boxes_cover_what_was_pasted_and_turn_with_the_picture(root: Path) -> None:
    unchanged = training(root, view=lambda picture, draws: picture, chosen=[1])
    ((picture,),) = unchanged.batches(range(1), batch_size=1, seed=0, workers=0)
    assert picture.masks is not None and len(picture.boxes) == 2
    mirrored = flipped(picture, np.array([0.49]))
    assert flipped(picture, np.array([0.5])) is picture
    for each in (picture, mirrored):
        assert each.masks is not None
        for (left, top, right, bottom), mask in zip(each.boxes.int(), each.masks, strict=True):
            inside = torch.zeros_like(mask)
            inside[top:bottom, left:right] = 1
            assert torch.equal(mask, inside)
    assert torch.equal(mirrored.image, picture.image.flip(2))
    again = flipped(mirrored, np.array([0.0]))
    assert torch.equal(again.boxes, picture.boxes) and torch.equal(again.image, picture.image)


def test_a_picture_that_cannot_be_decoded_is_named(root: Path, tmp_path: Path) -> None:
    write_coco(tmp_path, "train2017", pictures(1, seed=0, side=32))
    (tmp_path / "train2017" / "000000000000.jpg").write_bytes(b"no picture")
    broken = training(tmp_path, chosen=[0]).batches(range(1), batch_size=1, seed=0, workers=2)
    with pytest.raises(DataError, match=r"train2017/000000000000.jpg cannot be decoded"):
        next(broken)


def test_threads_work_ahead_and_end_when_nobody_listens() -> None:
    begun: list[int] = []

    def load(item: int) -> int:
        begun.append(item)
        return item * item

    before = threading.active_count()
    loaded = ahead(load, iter(range(10**6)), workers=2, count=3)
    assert [next(loaded) for _ in range(4)] == [0, 1, 4, 9]
    loaded.close()
    assert len(begun) <= 8 and threading.active_count() == before
    assert list(ahead(load, range(5), workers=2, count=0)) == [0, 1, 4, 9, 16]


def test_a_picture_goes_to_a_device_as_a_whole() -> None:
    picture = Picture(
        torch.zeros(3, 4, 4, dtype=torch.uint8),
        torch.zeros(1, 4),
        torch.zeros(1, dtype=torch.int64),
        torch.zeros(1, 4, 4, dtype=torch.uint8),
    )
    moved = picture.to(torch.device("meta"))
    assert moved.masks is not None
    assert {t.device.type for t in (moved.image, moved.boxes, moved.labels, moved.masks)} == {
        "meta"
    }
