from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from unlabeled.errors import CheckpointError, EnvironmentProblem
from unlabeled.models.backbone_files import export_backbone, load_backbone_state, load_into
from unlabeled.registry import Component, get

MEAN, STD = (0.485, 0.456, 0.406), (0.228, 0.224, 0.225)


def component(name: str, **fields: Any) -> Component:
    return Component("backbone", name, get("backbone", name).Config(**fields))


def trained(part: Component) -> nn.Module:
    """A backbone whose every tensor is random, running statistics included."""
    backbone: nn.Module = part.build()
    with torch.no_grad():
        for tensor in backbone.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return backbone.eval()


def export(backbone: nn.Module, part: Component, folder: Path) -> Path:
    return export_backbone(backbone, part, folder, mean=MEAN, std=STD, image_size=96)


def assert_equal_states(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert list(one) == list(other)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]) and tensor.dtype == other[name].dtype


def test_a_round_trip_is_exact(tmp_path: Path) -> None:
    part = component("resnet", depth=18, width=0.25, stem="small")
    backbone = trained(part).to(memory_format=torch.channels_last)
    path = export(backbone, part, tmp_path / "weights")
    assert path == tmp_path / "weights" / "backbone.safetensors"
    other = part.build()
    load_into(other, load_backbone_state(path), str(path))
    state = backbone.state_dict()
    assert_equal_states({name: other.state_dict()[name] for name in state}, dict(state))


def test_the_card_says_what_the_weights_are(tmp_path: Path) -> None:
    part = component("resnet", depth=18, width=0.25)
    export(trained(part), part, tmp_path)
    card = json.loads((tmp_path / "backbone.json").read_text())
    assert card.pop("unlabeled_version") and card.pop("how_to_load")
    assert card == {
        "architecture": {
            "name": "resnet",
            "depth": 18,
            "width": 0.25,
            "stem": "imagenet",
            "stages": 4,
            "zero_init_residual": False,
        },
        "feature_dim": 128,
        "normalisation": {"mean": list(MEAN), "std": list(STD)},
        "image_size": 96,
    }


@pytest.mark.slow
def test_the_weights_load_into_torchvision_s_own_model(tmp_path: Path) -> None:
    part = component("resnet", depth=18)
    backbone = trained(part)
    path = export(backbone, part, tmp_path)
    theirs = torchvision.models.resnet18().eval()
    result = theirs.load_state_dict(safetensors.torch.load_file(path), strict=False)
    assert (result.missing_keys, result.unexpected_keys) == (["fc.weight", "fc.bias"], [])
    theirs.fc = nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(theirs(images), backbone(images))


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    [
        component("resnet", depth=18),
        component("resnet", depth=50, width=0.25),
        component("resnet", depth=18, stem="small"),
        component("resnet", depth=34, width=0.5, stem="small"),
        component("resnet", depth=18, width=0.5, stages=2),
        component("resnext", depth=50, groups=4, width_per_group=8, stem="small"),
        component("regnet", depth=5, w0=16, wa=12.0, wm=2.0, group_width=8),
        component("vit", width=16, depth=2, heads=2, patch=8, image_size=32),
        component("alexnet", sobel=True, width=0.125, stem="small", grid=2, hidden_dim=16),
        component("vgg16", width=0.0625, grid=1, hidden_dim=0),
        component("timm", model="mobilenetv3_small_050"),
        component("timm", model="vit_tiny_patch16_224", options={"img_size": 32}),
    ],
    ids=lambda part: "-".join(map(str, (part.name, *vars(part.fields).values()))),
)
def test_the_card_s_lines_rebuild_the_backbone_without_this_package(
    part: Component, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = trained(part)
    export(backbone, part, tmp_path)
    monkeypatch.chdir(tmp_path)
    code = "\n".join(json.loads(Path("backbone.json").read_text())["how_to_load"])
    assert "unlabeled" not in code
    scope: dict[str, Any] = {}
    exec(code, scope)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(scope["m"](images), backbone(images), rtol=0, atol=0)


def test_pixels_are_exported_as_no_weights(tmp_path: Path) -> None:
    part = component("raw_pixels", image_size=8)
    assert load_backbone_state(export(part.build(), part, tmp_path)) == {}


@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "weights.pth.tar"])
def test_torch_files_are_read_as_data(tmp_path: Path, name: str) -> None:
    state = {"a": torch.randn(3), "b": torch.arange(2)}
    torch.save(state, tmp_path / name)
    assert_equal_states(load_backbone_state(tmp_path / name), state)


def test_code_in_a_torch_file_is_refused_and_never_runs(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"a": Payload()}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"cannot read the weights .*w\.pt"):
        load_backbone_state(tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()
    torch.save({"loss": np.float64(0.5), "state_dict": {}}, tmp_path / "w.pt")
    with pytest.raises(
        CheckpointError, match=r"as data: .* it holds numpy\.\S*scalar, .*torch.save"
    ):
        load_backbone_state(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_damaged_files_are_checkpoint_errors(tmp_path: Path, name: str) -> None:
    state = {"a": torch.randn(50, 3), "b": torch.randn(7)}
    path = tmp_path / name
    if name.endswith(".pt"):
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    whole = path.read_bytes()
    noise = torch.randint(0, 256, (300,), dtype=torch.uint8).numpy().tobytes()
    for damaged in [b"", b"\x80", noise, whole[: len(whole) // 2], whole[:-1], noise + whole]:
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="cannot read the weights"):
            load_backbone_state(path)


def test_missing_unknown_and_nested_files_are_checkpoint_errors(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no weights file"):
        load_backbone_state(tmp_path / "w.pt")
    (tmp_path / "w.onnx").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"unknown kind of weights file '\.onnx'"):
        load_backbone_state(tmp_path / "w.onnx")
    torch.save({"state_dict": {"a": torch.zeros(1)}, "epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"other entries \(2\): state_dict, epoch"):
        load_backbone_state(tmp_path / "w.pt")
    torch.save([torch.zeros(1)], tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="expected names and tensors, got list"):
        load_backbone_state(tmp_path / "w.pt")


def test_weights_that_do_not_fit_are_refused_whole_with_counts(tmp_path: Path) -> None:
    part = component("resnet", depth=18, width=0.25)
    backbone = trained(part)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    state = {name: torch.zeros_like(tensor) for name, tensor in before.items()}
    for name in [name for name in state if name.startswith("layer4")]:
        del state[name]
    state["conv1.weight"] = torch.zeros(32, 3, 7, 7)
    state["fc.weight"] = torch.zeros(1000, 128)
    with pytest.raises(CheckpointError) as caught:
        load_into(backbone, state, "some/file.pt")
    message = str(caught.value)
    assert "some/file.pt" in message
    # 4 convolutions and 4 norms of 5 tensors, 1 of each in the shortcut.
    assert "missing (30): layer4.0.conv1.weight, " in message
    assert "layer4.0.bn2.weight, ..." in message and "layer4.0.bn2.bias" not in message
    assert "unexpected (1): fc.weight" in message
    assert "of another shape (1): conv1.weight [32, 3, 7, 7] instead of [16, 3, 7, 7]" in message
    assert_equal_states(dict(backbone.state_dict()), before)


def test_a_failed_write_leaves_the_last_good_file(tmp_path: Path, monkeypatch: Any) -> None:
    part = component("raw_pixels", image_size=2)
    path = export(part.build(), part, tmp_path)
    good = path.read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    resnet = component("resnet", depth=18, width=0.25)
    with pytest.raises(EnvironmentProblem, match="No space left"):
        export(resnet.build(), resnet, tmp_path)
    assert path.read_bytes() == good
    assert sorted(p.name for p in tmp_path.iterdir()) == ["backbone.json", path.name]
