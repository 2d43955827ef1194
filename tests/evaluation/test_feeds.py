from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from tests_support.probes import Blobs, Whole, flatten, make_probe, unit_range
from tests_support.ranks import run_ranks
from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.evaluation.feeds import augmented_feed, cached_feed

BLOBS = Blobs(classes=3, spread=30)
CPU = torch.device("cpu")


def probe(train: int = 22, batch_size: int = 64, broken: frozenset[int] = frozenset()) -> Probe:
    source = BLOBS.draw(train, 1)
    source.broken = broken
    return make_probe(source, BLOBS.draw(5, 2), batch_size=batch_size)


def test_cached_epochs_hold_every_row_once_with_its_label() -> None:
    features = probe().features("train")
    assert features.labels is not None
    feed = cached_feed(features, batch_size=8, seed=0, device=CPU)
    epochs = []
    for epoch in range(2):
        found = list(feed(epoch))
        assert [len(rows) for rows, _ in found] == [8, 8, 6]
        rows, labels = (torch.cat(part) for part in zip(*found, strict=True))
        places = [int((features.features == row).all(dim=1).nonzero()) for row in rows]
        assert sorted(places) == list(range(22))
        assert labels.equal(features.labels[places])
        epochs.append(places)
    assert epochs[0] != epochs[1]
    again = torch.cat([rows for rows, _ in feed(0)])
    assert again.equal(features.features[epochs[0]])
    other = cached_feed(features, batch_size=22, seed=1, device=CPU)
    assert not next(other(0))[0].equal(again)


def test_augmented_epochs_differ_in_order_and_in_views() -> None:
    still = augmented_feed(probe(), Whole(), batch_size=8)
    noisy = augmented_feed(probe(), Whole(noise=9), batch_size=8)
    features = probe().features("train")
    assert features.labels is not None
    for epoch in range(2):
        found = list(still(epoch))
        assert [len(rows) for rows, _ in found] == [8, 8, 8]
        assert found[2][0][6:].equal(found[0][0][:2])  # the first again, to fill the last batch
        assert len(torch.cat([rows for rows, _ in found]).unique(dim=0)) == 22
        for (rows, labels), (moved, _) in zip(found, noisy(epoch), strict=True):
            places = [int((features.features == row).all(dim=1).nonzero()) for row in rows]
            assert labels.equal(features.labels[places])
            assert not rows.requires_grad
            shift = (moved - rows) * 127.5
            assert float(shift.min()) >= 0 and 8 < float(shift.max()) < 9.01
    first = [torch.cat([rows for rows, _ in noisy(epoch)]) for epoch in (0, 1, 0)]
    assert first[0].equal(first[2]) and not first[0].equal(first[1])
    # The same image in another epoch is another view.
    noise = [(rows * 127.5 + 127.5).sum(dim=1) for rows in first]
    assert not noise[0].sort().values.equal(noise[1].sort().values)


def test_a_small_training_set_is_one_batch() -> None:
    feed = augmented_feed(probe(train=5), Whole(), batch_size=256)
    assert [len(rows) for rows, _ in feed(0)] == [5]


def test_forward_passes_are_no_larger_than_asked() -> None:
    sizes: list[int] = []

    def encode(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return flatten(images)

    small = make_probe(BLOBS.draw(10, 1), BLOBS.draw(5, 2), encode=encode, batch_size=3)
    assert [len(rows) for rows, _ in augmented_feed(small, Whole(), batch_size=10)(0)] == [10]
    assert sizes == [3, 3, 3, 1]


def test_broken_images_are_replaced_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    feed = augmented_feed(probe(train=8, broken=frozenset({2, 5})), Whole(), batch_size=8)
    black = unit_range(torch.zeros(1)).item()
    with caplog.at_level(logging.WARNING):
        for epoch in range(2):
            for rows, labels in feed(epoch):
                assert len(rows) == len(labels) == 8
                assert not (rows == black).all(dim=1).any()
    assert caplog.text.count("2 training images cannot be decoded") == 1


def on_ranks(batch_size: int) -> list[tuple[Tensor, Tensor]]:
    feed = augmented_feed(probe(), Whole(noise=9), batch_size=batch_size)
    return [batch for epoch in range(2) for batch in feed(epoch)]


@pytest.mark.slow
def test_every_rank_is_given_the_batches_of_one() -> None:
    for batch_size in (8, 256):
        alone = on_ranks(batch_size)
        for found in run_ranks(on_ranks, 2, batch_size):
            for (rows, labels), (same, own) in zip(found, alone, strict=True):
                assert rows.equal(same) and labels.equal(own)
