from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests_support.probes import Blobs, Whole, make_probe
from tests_support.ranks import run_ranks
from unlabeled.config.check import build_config
from unlabeled.data.sources.subset import Subset
from unlabeled.data.transforms.base import Pipeline
from unlabeled.data.transforms.multi_crop import MultiCrop
from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.evaluation.training_views import training_views

BLOBS = Blobs(classes=3, spread=30)


def probe() -> Probe:
    return make_probe(BLOBS.draw(22, 1), BLOBS.draw(5, 2))


def epoch(number: int, pipeline: Pipeline | None = None) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Views, labels and indices of the batches; copies, for views are lent."""
    measured = probe()
    views = training_views(measured, measured.train, pipeline or Whole(noise=9), batch_size=8)
    found = []
    for batch in views(number):
        assert batch.labels is not None and len(batch.views) == 1
        found.append((batch.views[0].clone(), batch.labels.clone(), batch.indices.clone()))
    return found


def test_an_epoch_has_whole_batches_of_every_image_with_their_labels() -> None:
    orders = []
    labels_of = probe().train.labels
    assert labels_of is not None
    for number in (0, 1):
        batches = epoch(number)
        assert [len(images) for images, _, _ in batches] == [8, 8, 8]
        indices = torch.cat([places for _, _, places in batches])
        assert sorted(indices[:22].tolist()) == list(range(22))
        assert indices[22:].equal(indices[:2])  # which fill the last batch
        labels = torch.cat([labels for _, labels, _ in batches])
        assert labels.tolist() == labels_of[indices].tolist()
        orders.append(indices.tolist())
    assert orders[0] != orders[1]
    assert all(
        a.equal(b)
        for one, two in zip(epoch(1), epoch(1), strict=True)
        for a, b in zip(one, two, strict=True)
    )


@pytest.mark.slow
def test_ranks_share_the_batches_of_one() -> None:
    shares = run_ranks(epoch, 2, 1)
    for number, whole in enumerate(epoch(1)):
        for part, expected in enumerate(whole):
            assert torch.cat([share[number][part] for share in shares]).equal(expected)


def small(ranks: int) -> list[int]:
    measured = probe()
    part = Subset(measured.train, np.arange(7))
    views = training_views(measured, part, Whole(), batch_size=256)
    return [index for batch in views(0) for index in batch.indices.tolist()]


@pytest.mark.slow
def test_a_set_that_the_ranks_cannot_share_evenly_is_seen_whole() -> None:
    alone = small(1)
    assert sorted(alone) == list(range(7))
    shares = run_ranks(small, 2, 2)
    assert [*shares[0], *shares[1]] == [*alone, alone[0]]


def test_steps_that_a_view_leaves_to_the_device_are_done() -> None:
    def crop(backend: str) -> MultiCrop:
        flip = {"name": "horizontal_flip", "p": 1.0}
        solarize = {"name": "solarize", "p": 1.0}
        group = {"count": 1, "size": 4, "scale": [0.5, 1.0], "role": "global"}
        fields = {"crops": [group], "operations": [flip, solarize], "backend": backend}
        return MultiCrop(build_config(MultiCrop.Config, fields))

    assert crop("device").deferred_steps
    for (found, _, _), (expected, _, _) in zip(
        epoch(0, crop("device")), epoch(0, crop("reference")), strict=True
    ):
        assert found.equal(expected)


def test_a_subset_is_trained_on_alone() -> None:
    measured = replace(probe(), seed=3)
    part = Subset(measured.train, np.array([3, 9, 12]))
    views = training_views(measured, part, Whole(), batch_size=256)  # one batch of all there are
    for batch in views(0):
        images = [measured.train.image(place) for place in (3, 9, 12)]
        expected = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy())
        assert batch.views[0].equal(expected[batch.indices])
        assert sorted(batch.indices.tolist()) == [0, 1, 2]
