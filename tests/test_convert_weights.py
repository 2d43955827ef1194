"""extra_scripts/convert_weights.py: through every layout and back, bit by bit."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision

from tests_support.commands import ROOT, python
from tests_support.in_process import tiny_config
from unlabeled.engine.pretrain import pretrain

SCRIPT = str(ROOT / "extra_scripts" / "convert_weights.py")
RESNET18 = ("--backbone", "resnet18")

pytestmark = pytest.mark.slow


def run(source: Path, target: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return python(SCRIPT, str(source), str(target), *options)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A torchvision ResNet-18 with its classifier, every tensor random."""
    state = torchvision.models.resnet18().state_dict()
    for name, tensor in state.items():
        state[name] = (torch.rand(tensor.shape) * 99).to(tensor.dtype)
    torch.save(state, tmp_path / "resnet18.pth")
    return tmp_path / "resnet18.pth"


def test_there_and_back(published: Path, tmp_path: Path) -> None:
    here = published
    # Every layout has a test of its own beside the package's key maps.
    for layout in ("detectron2", "timm", "vissl", "own"):
        suffix = "safetensors" if layout in ("own", "timm") else "pth"
        there = tmp_path / f"{layout}-{here.stem}.{suffix}"
        done = run(here, there, "--to", layout, *RESNET18)
        assert done.returncode == 0, done.stderr
        assert f"-> {layout}: 120 tensors" in done.stdout
        assert ("STRIDE_IN_1X1 False" in done.stdout) == (layout == "detectron2")
        here = there
    ours, original = safetensors.torch.load_file(here), torch.load(published)
    assert set(original) - set(ours) == {"fc.weight", "fc.bias"} and set(ours) <= set(original)
    for name, tensor in ours.items():
        assert torch.equal(tensor, original[name]) and tensor.dtype == original[name].dtype


def test_a_run_says_its_architecture_itself(tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    pretrain(tiny_config(run_folder, "max_steps=1"), torch.device("cpu"))
    done = run(run_folder, tmp_path / "mine.pth", "--to", "moco")
    assert done.returncode == 0, done.stderr
    exported = safetensors.torch.load_file(run_folder / "weights" / "backbone.safetensors")
    theirs = torch.load(tmp_path / "mine.pth")["state_dict"]
    assert set(theirs) == {f"module.encoder_q.{name}" for name in exported}
    assert all(torch.equal(theirs[f"module.encoder_q.{k}"], v) for k, v in exported.items())
    checkpoint = run_folder / "checkpoints" / "00000001"
    assert checkpoint.is_dir() or os.listdir(run_folder / "checkpoints")
    newest = next(path for path in (run_folder / "checkpoints").iterdir() if path.is_dir())
    done = run(newest, tmp_path / "from_checkpoint.safetensors")
    assert done.returncode == 0, done.stderr
    again = safetensors.torch.load_file(tmp_path / "from_checkpoint.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in exported.items())


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
    out = tmp_path / "out.safetensors"
    for status, said, done in [
        (4, "missing (", run(tmp_path / "part.pth", out, *RESNET18)),
        (4, "of another shape", run(published, out, *RESNET18, "backbone.width=0.5")),
        (4, "missing (", run(published, out, "--backbone", "resnet50")),
        (4, "cannot read the weights", run(tmp_path / "code.pth", out, *RESNET18)),
        (4, "A pickle is a program", run(tmp_path / "model.pkl", out, *RESNET18)),
        (4, "holds no tensor", run(published, out, *RESNET18, "--from", "moco")),
        (4, "does not exist", run(tmp_path / "gone.pth", out, *RESNET18)),
        (2, "give --backbone", run(published, out)),
        (2, "unknown choice 'resnet81'", run(published, out, "--backbone", "resnet81")),
        (2, "ends in .pt, .pth", run(published, out, *RESNET18, "--to", "detectron2")),
        (2, "is there already", run(published, published, *RESNET18)),
    ]:
        assert done.returncode == status and said in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    assert not out.exists() and not (tmp_path / "ran").exists()
