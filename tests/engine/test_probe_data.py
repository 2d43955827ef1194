"""What an online probe measures on, and the reasons for having nothing to measure on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests_support.in_process import tiny_config, tiny_trainer
from unlabeled.engine import build
from unlabeled.engine.probe_data import ProbeData, probe_data


def test_labelled_splits_that_match_are_taken(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    train = config.dataset.build(split="train")
    data = probe_data(config, train, torch.device("cpu"))
    assert isinstance(data, ProbeData)
    assert data.train is train
    assert (len(data.test), data.test.classes) == (16, train.classes)


def test_without_labels_there_is_nothing_to_probe(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    train = config.dataset.build(split="train")
    train.labels = None
    assert probe_data(config, train, torch.device("cpu")) == "the training images have no labels"


def test_a_label_must_mean_the_same_in_both_splits(tmp_path: Path) -> None:
    """A class of the test images that no neighbour can vote for would have no score."""
    train = tiny_config(tmp_path, "dataset.num_classes=3").dataset.build(split="train")
    reason = probe_data(tiny_config(tmp_path), train, torch.device("cpu"))
    assert reason == "the training and the test images have different classes"


def test_the_test_images_are_not_looked_for_where_no_hook_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(build, "probe_data", lambda *_: asked.append(1) or "none")
    for number, choice in enumerate(("hooks.knn_probe=null", "hooks.knn_probe.k=3")):
        tiny_trainer(tmp_path / str(number), choice, "max_steps=2").fit()
        assert len(asked) == number
