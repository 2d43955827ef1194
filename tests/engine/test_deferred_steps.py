from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests_support.in_process import tiny_trainer
from unlabeled.data.types import Batch


def first_batches(run: Path, *overrides: str) -> list[Batch]:
    return list(tiny_trainer(run, *overrides).data.training(0, 3))


@pytest.mark.slow  # compiles the crop's kernel where it is not yet cached
def test_the_device_backend_trains_on_nearly_the_same_batches(tmp_path: Path) -> None:
    """The same images with the same parameters; normalised, a grey level is 1 / (255 std)."""
    level = 1 / (255 * 0.225)
    reference = first_batches(tmp_path / "reference", "transform.backend=reference")
    device = first_batches(tmp_path / "device", "transform.backend=device")
    assert len(reference) == len(device) == 3
    for theirs, ours in zip(reference, device, strict=True):
        assert torch.equal(theirs.indices, ours.indices)
        assert ours.deferred == () and len(theirs.views) == len(ours.views) == 3
        for one, other in zip(theirs.views, ours.views, strict=True):
            off = (one - other).abs() / level
            assert off.mean() < 0.5
            assert off.mean(dim=(1, 2, 3)).max() < 2


@pytest.mark.slow
def test_the_steps_are_done_once_and_on_what_the_host_has_cropped(tmp_path: Path) -> None:
    """Without its steps the device's batch would be the bare crops, which are far off."""
    bare = first_batches(tmp_path / "bare", "transform.backend=device", "transform.operations=[]")
    device = first_batches(tmp_path / "device", "transform.backend=device")
    for theirs, ours in zip(bare, device, strict=True):
        for one, other in zip(theirs.views, ours.views, strict=True):
            assert (one - other).abs().mean() > 0.1
