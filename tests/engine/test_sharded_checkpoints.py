"""A run in shards goes on as if it had not stopped, on any number of ranks, sharded or not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests_support.in_process import different, tiny_config, tiny_trainer
from tests_support.ranks import run_ranks
from tests_support.same_run import losses
from tests_support.sharded import FSDP, LARC, SHORT, whole
from unlabeled.distributed import comm
from unlabeled.distributed.shards import whole as all_rows
from unlabeled.engine import checkpoint
from unlabeled.engine.pretrain import pretrain
from unlabeled.engine.stored_backbones import backbone_state
from unlabeled.engine.trainer import Trainer
from unlabeled.models.backbone_files import load_backbone_state

STOPPED, END = 3, 5
"""Steps: in the middle of the second epoch, and of the third."""


def _state(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Whole tensors of the method and of the optimizer."""
    slots = trainer.optimizer.state_dict()["state"]
    found = {
        f"{n}/{key}": torch.as_tensor(t) for n, slot in slots.items() for key, t in slot.items()
    }
    gathered = {n: all_rows(t).clone() for n, t in found.items()}
    return whole(trainer), gathered


def _leaves(run: str, until: int, overrides: tuple[str, ...]) -> None:
    """Train to a step, from whatever checkpoint is there."""
    ranks = f"launch.processes={comm.world_size()}"
    choices = (ranks, "hooks.knn_probe=null", f"max_steps={until}", *SHORT, *overrides)
    pretrain(tiny_config(Path(run), *choices), torch.device("cpu"))


def _restored(
    path: str, folder: str, overrides: tuple[str, ...]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    ranks = f"launch.processes={comm.world_size()}"
    trainer = tiny_trainer(Path(folder), ranks, *SHORT, *overrides)
    step = checkpoint.restore(
        checkpoint.load(Path(path)),
        method=trainer.method,
        optimizer=trainer.optimizer,
        scaler=trainer.precision.scaler,
        present=trainer.round,
    )
    assert step == STOPPED
    return _state(trainer)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks in shards that stopped in the middle of an epoch."""
    path = tmp_path_factory.mktemp("sharded") / "run"
    run_ranks(_leaves, 2, str(path), STOPPED, (*LARC, FSDP))
    return path


def newest(run: Path) -> Path:
    found = checkpoint.newest(run / "checkpoints")
    assert found is not None
    return found


@pytest.mark.slow
def test_a_resumed_run_is_the_run_that_never_stopped(run: Path, tmp_path: Path) -> None:
    alone, resumed = tmp_path / "alone", tmp_path / "resumed"
    shutil.copytree(run, resumed)
    for folder in (alone, resumed):
        run_ranks(_leaves, 2, str(folder), END, (*LARC, FSDP))
    assert losses(resumed) == losses(alone)
    assert len(losses(alone)) == END
    for file in newest(alone).iterdir():
        other = newest(resumed) / file.name
        if file.suffix == ".safetensors":
            assert file.read_bytes() == other.read_bytes(), file.name
    ends = [checkpoint.method_state(checkpoint.load(newest(end))) for end in (alone, resumed)]
    assert not different(*ends)


@pytest.mark.slow
def test_any_number_of_ranks_sharded_or_not_goes_on(run: Path, tmp_path: Path) -> None:
    path, choices = str(newest(run)), (*LARC, FSDP)
    written, slots = run_ranks(_restored, 2, path, str(tmp_path), choices)[0]
    assert any(len(t) for t in slots.values())
    stored = checkpoint.method_state(checkpoint.load(newest(run)))
    assert not different({n: written[n] for n in stored}, stored)
    for ranks, overrides in ((1, choices), (3, choices), (2, LARC)):
        for state, momenta in run_ranks(_restored, ranks, path, str(tmp_path), overrides):
            assert not different(state, written)
            assert not different(momenta, slots)


@pytest.mark.slow
def test_a_run_of_one_process_goes_on_in_shards(tmp_path: Path) -> None:
    run_ranks(_leaves, 1, str(tmp_path / "run"), STOPPED, LARC)
    path = str(newest(tmp_path / "run"))
    [(written, slots)] = run_ranks(_restored, 1, path, str(tmp_path), LARC)
    for state, momenta in run_ranks(_restored, 2, path, str(tmp_path), (*LARC, FSDP)):
        assert not different(state, written)
        assert not different(momenta, slots)
    run_ranks(_leaves, 2, str(tmp_path / "run"), END, (*LARC, FSDP))
    assert len(losses(tmp_path / "run")) == END


@pytest.mark.slow
def test_the_export_and_the_checkpoint_hold_the_whole_backbone(run: Path) -> None:
    trainer = tiny_trainer(run.parent / "other", *SHORT)
    exported = load_backbone_state(run / "weights" / "backbone.safetensors")
    assert not different(exported, backbone_state(newest(run), trainer.method.backbone))
    assert {n: t.shape for n, t in exported.items()} == {
        n: t.shape for n, t in trainer.method.backbone.state_dict().items()
    }
