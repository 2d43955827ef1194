"""The probe measures the features and touches nothing."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests_support.in_process import METHODS, different, state_of, tiny_trainer, trained
from unlabeled.config.check import build_config
from unlabeled.engine.checkpoint import random_state
from unlabeled.engine.probe_data import ProbeData
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.engine.trainer import Trainer
from unlabeled.errors import ConfigError
from unlabeled.hooks.knn_probe import KnnProbe


def records(run: Path, phase: str) -> list[dict[str, Any]]:
    return [r for r in RunDirectory(run).metrics() if r["phase"] == phase]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_run_with_the_probe_equals_one_without_bit_for_bit(method: str, tmp_path: Path) -> None:
    """Weights, batch-norm statistics, queues, banks, and where every random generator stands."""
    ends = {}
    for name, choice in {
        "with": "hooks.knn_probe.every_epochs=1",
        "without": "hooks.knn_probe=null",
    }.items():
        trainer = trained(tmp_path / name, f"method={method}", choice, "dataset.num_samples=24")
        ends[name] = (state_of(trainer), trainer.optimizer.state_dict(), random_state())
    assert len([r for r in records(tmp_path / "with", "epoch") if "knn_top1" in r]) == 3
    assert not [r for r in records(tmp_path / "without", "epoch") if "knn_top1" in r]
    (ours, our_optimizer, our_random), (theirs, their_optimizer, their_random) = ends.values()
    assert not different(ours, theirs)
    for number, slots in our_optimizer["state"].items():
        assert not different(slots, their_optimizer["state"][number])
    assert torch.equal(our_random["torch"], their_random["torch"])
    assert torch.equal(our_random["numpy"]["keys"], their_random["numpy"]["keys"])
    assert our_random["numpy"]["rest"] == their_random["numpy"]["rest"]
    assert our_random["python"] == their_random["python"]
    losses = [[r["loss"] for r in records(tmp_path / n, "train")] for n in ("with", "without")]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_training_goes_on_in_training_mode(tmp_path: Path) -> None:
    trainer = trained(tmp_path)
    assert trainer.method.training
    assert all(module.training for module in trainer.method.modules())


def by_hand(trainer: Trainer, k: int, temperature: float) -> float:
    """Weighted k-NN with loops, in double precision."""
    data = trainer.probe_data
    assert isinstance(data, ProbeData)
    trainer.method.eval()

    def features(source: Any) -> torch.Tensor:
        from unlabeled.data.randomness import SampleKey

        images = [data.pipeline(source.image(i), SampleKey(0, 0, i))[0] for i in range(len(source))]
        pixels = torch.from_numpy(np.stack(images))
        with torch.no_grad():
            found = trainer.method.encode(data.normalize(pixels)).double()
        return found / found.norm(dim=1, keepdim=True)

    train, test = features(data.train), features(data.test)
    assert data.train.labels is not None and data.test.labels is not None
    hits = 0
    for row, label in zip(test, data.test.labels, strict=True):
        near = sorted(range(len(train)), key=lambda i: -float(row @ train[i]))[:k]
        votes = dict.fromkeys(range(data.train.num_classes), 0.0)
        for i in near:
            votes[int(data.train.labels[i])] += math.exp(float(row @ train[i]) / temperature)
        hits += max(votes, key=lambda c: votes[c]) == label
    return 100 * hits / len(test)


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 5])
def test_the_number_is_that_of_an_independent_computation(k: int, tmp_path: Path) -> None:
    trainer = trained(tmp_path, "max_steps=4", f"hooks.knn_probe.k={k}")
    (last,) = [r for r in records(tmp_path, "epoch") if r["step"] == trainer.step]
    assert last["knn_top1"] == pytest.approx(by_hand(trainer, k, 0.07))


@pytest.mark.slow
def test_it_measures_every_few_epochs_and_at_the_end(tmp_path: Path) -> None:
    trained(tmp_path, "epochs=5", "hooks.knn_probe.every_epochs=2")
    measured = [r["epoch"] for r in records(tmp_path, "epoch") if "knn_top1" in r]
    assert measured == [2, 4, 5]


@pytest.mark.slow
def test_without_labels_of_a_test_split_it_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = tiny_trainer(tmp_path)
    trainer.probe_data = "the training images have no labels"
    with caplog.at_level(logging.INFO, logger="unlabeled"):
        trainer.fit()
    assert caplog.messages.count("no k-NN probe: the training images have no labels") == 1
    assert not [r for r in records(tmp_path, "epoch") if "knn_top1" in r]


@pytest.mark.slow
def test_more_neighbours_than_images_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="unlabeled"):
        trained(tmp_path, "hooks.knn_probe.k=49")
    (said,) = [m for m in caplog.messages if m.startswith("no k-NN probe")]
    assert "49" in said and "48" in said
    assert not [r for r in records(tmp_path, "epoch") if "knn_top1" in r]


@pytest.mark.parametrize("field", ["every_epochs", "k", "temperature", "max_samples"])
def test_numbers_must_be_positive(field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field}: must be positive, got 0"):
        build_config(KnnProbe.Config, {field: 0})
