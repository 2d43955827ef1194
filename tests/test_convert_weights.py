"""extra_scripts/convert_weights.py: through every layout and back, bit by bit."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision

from tests_support.extracting import contents, extract_config, extracted
from tests_support.in_process import tiny_config
from tests_support.scripts import script
from unlabeled.engine.pretrain import pretrain
from unlabeled.evaluation.subject import load_encoder
from unlabeled.models.key_maps import LAYOUTS

RESNET18 = ("--backbone", "resnet18")
NARROW = (*RESNET18, "backbone.width=0.125")

pytestmark = pytest.mark.slow


def convert(source: Path, target: Path, *options: str) -> str:
    """What a conversion that succeeds says."""
    done = script("convert_weights", source, target, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow ResNet-18 as torchvision saves it, with its classifier, every tensor random."""
    model = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [2, 2, 2, 2])
    state = {}
    for name, tensor in model.state_dict().items():
        # An eighth of all channels but the three colours.
        shape = [size // 8 if size > 7 and name != "fc.bias" else size for size in tensor.shape]
        state[name] = (torch.rand(shape) * 99).to(tensor.dtype)
    path = tmp_path_factory.mktemp("published") / "resnet18.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    pretrain(tiny_config(folder, "max_steps=1"), torch.device("cpu"))
    return folder


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert set(one) == set(other)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]) and tensor.dtype == other[name].dtype, name


def test_there_and_back(published: Path, tmp_path: Path) -> None:
    """Through one layout after the other; all pairs are tested beside the package's key maps."""
    here = published
    layouts = ("own", "torchvision", "timm", "swav", "detectron2", "deepcluster_v2", "dino", "moco")
    for number, layout in enumerate([*layouts, "vissl", "own"]):
        suffix = "safetensors" if LAYOUTS[layout].flat else "pth"
        there = tmp_path / f"{number}.{suffix}"
        said = convert(here, there, "--to", layout, *NARROW)
        assert f"-> {layout}: 120 tensors" in said
        assert ("STRIDE_IN_1X1 False" in said) == (layout == "detectron2")
        here = there
    original = torch.load(published)
    del original["fc.weight"], original["fc.bias"]
    assert_same(safetensors.torch.load_file(here), original)


def test_a_run_says_its_architecture_itself(run: Path, tmp_path: Path) -> None:
    convert(run, tmp_path / "mine.pth", "--to", "moco")
    exported = safetensors.torch.load_file(run / "weights" / "backbone.safetensors")
    theirs = torch.load(tmp_path / "mine.pth")["state_dict"]
    assert_same(theirs, {f"module.encoder_q.{name}": tensor for name, tensor in exported.items()})
    (newest,) = (path for path in (run / "checkpoints").iterdir() if path.is_dir())
    convert(newest, tmp_path / "from_checkpoint.safetensors")
    again = safetensors.torch.load_file(tmp_path / "from_checkpoint.safetensors")
    assert_same(again, exported)


def test_a_folder_of_ours_is_weights_by_itself(run: Path, published: Path, tmp_path: Path) -> None:
    """The backbone and the normalisation are those that the page beside the tensors says."""
    said = convert(run, tmp_path / "ours")
    assert f"weights={tmp_path / 'ours'} " in said
    assert sorted(os.listdir(tmp_path / "ours")) == ["backbone.json", "backbone.safetensors"]
    card, exported = (
        json.loads((folder / "backbone.json").read_text())
        for folder in (tmp_path / "ours", run / "weights")
    )
    assert card == exported
    from_run = extracted(tmp_path / "from_run", f"weights={run}", "backbone=null")
    ours = f"weights={tmp_path / 'ours'}"
    from_folder = extracted(tmp_path / "from_folder", ours, "backbone=null")
    assert contents(from_folder / "features") == contents(from_run / "features")
    # A file of any name has its page beside it, and what SwAV's code divides by is known.
    convert(published, tmp_path / "swav.pth.tar", "--to", "swav", *NARROW)
    convert(tmp_path / "swav.pth.tar", tmp_path / "r18.safetensors", *NARROW, "--from", "swav")
    convert(tmp_path / "r18.safetensors", tmp_path / "r18.pth")
    card = json.loads((tmp_path / "r18.json").read_text())
    assert card["normalisation"]["std"] == [0.228, 0.224, 0.225]
    assert card["architecture"]["width"] == 0.125 and card["image_size"] == 224
    assert "load_file('r18.safetensors')" in "\n".join(card["how_to_load"])
    weights = f"weights={tmp_path / 'r18.safetensors'}"
    encoder = load_encoder(extract_config(tmp_path / "out", weights, "backbone=null"))
    assert encoder.normalization.std == (0.228, 0.224, 0.225)
    assert_same(dict(encoder.backbone.state_dict()), torch.load(tmp_path / "r18.pth"))
    # A page alone is enough to go on to another layout.
    convert(tmp_path / "ours", tmp_path / "back.pth", "--to", "torchvision")
    back = torch.load(tmp_path / "back.pth")
    assert_same(back, safetensors.torch.load_file(run / "weights" / "backbone.safetensors"))


class Payload:
    """What a stranger's pickle may do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_what_does_not_fit_is_refused_and_nothing_is_written(
    published: Path, tmp_path: Path
) -> None:
    state = torch.load(published)
    torch.save({k: v for k, v in state.items() if "layer4" not in k}, tmp_path / "part.pth")
    torch.save({"a": Payload(tmp_path / "ran")}, tmp_path / "code.pth")
    (tmp_path / "model.pkl").write_bytes(b"x")
    (tmp_path / "page.safetensors").write_bytes(published.read_bytes())
    (tmp_path / "page.json").write_text("{}")
    out = tmp_path / "out.safetensors"
    for status, said, source, target, *options in [
        (4, "missing (", tmp_path / "part.pth", out, *NARROW),
        (4, "of another shape", published, out, *RESNET18),
        (4, "missing (", published, out, "--backbone", "resnet50"),
        (4, "cannot read the weights", tmp_path / "code.pth", out, *NARROW),
        (4, "A pickle is a program", tmp_path / "model.pkl", out, *NARROW),
        (4, "holds no tensor", published, out, *NARROW, "--from", "moco"),
        (4, "does not exist", tmp_path / "gone.pth", out, *NARROW),
        (4, "page.json does not describe weights", tmp_path / "page.safetensors", out),
        (2, "give --backbone", published, out),
        (2, "unknown choice 'resnet81'", published, out, "--backbone", "resnet81"),
        (2, "ends in .pt, .pth", published, out, *NARROW, "--to", "detectron2"),
        (2, "is there already", published, published, *NARROW),
        (2, "page.json is there already", published, tmp_path / "page.safetensors", *NARROW),
    ]:
        if said.startswith("page.json is"):
            (tmp_path / "page.safetensors").unlink()
        done = script("convert_weights", source, target, *options)
        assert done.returncode == status and said in done.stderr, (said, done.stderr)
    assert not out.exists() and not (tmp_path / "ran").exists()
    assert not (tmp_path / "page.safetensors").exists()
