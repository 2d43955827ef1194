"""The exported backbone loads without this package and computes the same features."""

from __future__ import annotations

import json
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision

from tests_support.in_process import trained
from unlabeled.engine.trainer import Trainer

ONE_STEP = ("max_steps=1", "hooks.knn_probe=null")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A run at its end."""
    return trained(tmp_path_factory.mktemp("small"), *ONE_STEP)


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A run of torchvision's own architecture at its end."""
    run = tmp_path_factory.mktemp("resnet18")
    return trained(run, *ONE_STEP, "backbone=resnet18", "backbone.width=1", "backbone.stages=4")


@pytest.fixture(params=["small", pytest.param("resnet18", marks=pytest.mark.slow)])
def trainer(request: pytest.FixtureRequest) -> Trainer:
    """Each of the runs."""
    found: Trainer = request.getfixturevalue(request.param)
    return found


def card_of(trainer: Trainer) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((trainer.run.weights / "backbone.json").read_text())
    return card


@pytest.mark.slow
def test_the_written_lines_rebuild_the_network_without_this_package(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trainer.run.weights)
    lines = "\n".join(card_of(trainer)["how_to_load"])
    assert "unlabeled" not in lines
    scope: dict[str, Any] = {}
    exec(lines, scope)
    images = torch.rand(4, 3, 16, 16)
    trainer.method.backbone.eval()
    with torch.no_grad():
        ours, theirs = trainer.method.backbone(images), scope["m"](images)
    # Where training used another memory format, sums end in other last bits.
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert theirs.shape == (4, card_of(trainer)["feature_dim"])


def test_the_tensors_are_the_trained_ones(trainer: Trainer) -> None:
    written = safetensors.torch.load_file(trainer.run.weights / "backbone.safetensors")
    state = trainer.method.backbone.state_dict()
    assert written.keys() == state.keys()
    assert all(torch.equal(written[name], state[name]) for name in state)


@pytest.mark.slow
def test_resnet18_has_the_keys_of_torchvision(resnet18: Trainer) -> None:
    written = safetensors.torch.load_file(resnet18.run.weights / "backbone.safetensors")
    missing, unexpected = torchvision.models.resnet18().load_state_dict(written, strict=False)
    assert (missing, unexpected) == (["fc.weight", "fc.bias"], [])


def test_the_card_says_what_a_user_must_know(trainer: Trainer) -> None:
    card = card_of(trainer)
    config = trainer.config
    assert card["normalisation"] == {
        "mean": list(config.normalization.mean),
        "std": list(config.normalization.std),
    }
    assert card["image_size"] == 16  # the larger crop
    assert card["architecture"]["name"] == config.backbone.name
