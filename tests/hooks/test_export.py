"""The exported backbone loads without this package and computes the same features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision

from tests_support.in_process import trained
from unlabeled.engine.trainer import Trainer

ARCHITECTURES = {
    "small": [],
    "resnet18": ["backbone=resnet18", "max_steps=1", "hooks.knn_probe=null"],
}


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def trainer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A run at its end."""
    run = tmp_path_factory.mktemp(request.param)
    name = request.param
    width = [] if name == "small" else ["backbone.width=1"]
    return trained(run, *ARCHITECTURES[name], *width)


def card_of(trainer: Trainer) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((trainer.run.weights / "backbone.json").read_text())
    return card


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


def test_resnet18_has_the_keys_of_torchvision(tmp_path: Path) -> None:
    trainer = trained(
        tmp_path, "backbone=resnet18", "backbone.width=1", "max_steps=1", "hooks.knn_probe=null"
    )
    written = safetensors.torch.load_file(trainer.run.weights / "backbone.safetensors")
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
