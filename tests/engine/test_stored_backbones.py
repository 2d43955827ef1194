"""A run begins with the backbone of another one, and with nothing else of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests_support.in_process import state_of, tiny_config, tiny_trainer, trained
from tests_support.ranks import run_ranks
from unlabeled.distributed import comm
from unlabeled.distributed.shards import is_sharded
from unlabeled.distributed.shards import whole as all_rows
from unlabeled.engine.pretrain import pretrain
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.engine.stored_backbones import begin_with
from unlabeled.engine.trainer import Trainer
from unlabeled.errors import CheckpointError
from unlabeled.models.backbone_files import load_backbone_state

SMALL = ("backbone.stages=1", "hooks.knn_probe=null", "max_steps=1")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with another seed, method and head."""
    run = tmp_path_factory.mktemp("other") / "run"
    trained(run, *SMALL, "method=rotnet", "seed=5")
    return run


def weights_of(run: Path) -> dict[str, Tensor]:
    return load_backbone_state(run / "weights" / "backbone.safetensors")


def below(trainer: Trainer, prefix: str) -> dict[str, Tensor]:
    state = state_of(trainer)
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("what", [".", "weights/backbone.safetensors", "checkpoints/00000001"])
def test_backbone_and_teacher_begin_with_it(what: str, other: Path, tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, *SMALL, "method=dino", "seed=1")
    heads = below(trainer, "head.")
    begin_with(str(other / what), trainer.method)
    assert_equal(below(trainer, "backbone."), weights_of(other))
    assert_equal(below(trainer, "teacher.backbone."), weights_of(other))
    assert_equal(below(trainer, "head."), heads)


def _begun_in_shards(run: str, folder: str) -> dict[str, Tensor]:
    ranks = f"launch.processes={comm.world_size()}"
    trainer = tiny_trainer(Path(folder), *SMALL, ranks, "sharding=fsdp", "seed=1")
    begin_with(run, trainer.method)
    state = trainer.method.backbone.state_dict()
    assert any(map(is_sharded, state.values()))
    return {name: all_rows(tensor).clone() for name, tensor in state.items()}


@pytest.mark.slow
def test_every_rank_keeps_its_rows_of_it(other: Path, tmp_path: Path) -> None:
    for state in run_ranks(_begun_in_shards, 2, str(other), str(tmp_path)):
        assert_equal(state, weights_of(other))


@pytest.mark.slow
def test_a_run_that_goes_on_does_not_begin_again(other: Path, tmp_path: Path) -> None:
    source, run = tmp_path / "source", tmp_path / "run"
    shutil.copytree(other, source)
    choices = (*SMALL, f"initial_weights={source}", "optimizer=sgd", "scheduler.lr=1e-12")
    pretrain(tiny_config(run, *choices), torch.device("cpu"))
    first, expected = weights_of(run), weights_of(other)
    for name in (name for name in expected if name.endswith("weight")):
        torch.testing.assert_close(first[name], expected[name])
    shutil.rmtree(source)
    pretrain(tiny_config(run, *choices, "max_steps=2"), torch.device("cpu"))
    assert len([r for r in RunDirectory(run).metrics() if r["phase"] == "train"]) == 2


@pytest.mark.slow
def test_what_does_not_fit_is_refused_whole(other: Path, tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, *SMALL, "backbone.stages=2")
    before = state_of(trainer)
    with pytest.raises(CheckpointError, match="do not fit the backbone"):
        begin_with(str(other), trainer.method)
    with pytest.raises(CheckpointError, match=r"initial_weights: .*nowhere does not exist"):
        begin_with(str(tmp_path / "nowhere"), trainer.method)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"^\S*empty holds neither exported weights nor"):
        begin_with(str(tmp_path / "empty"), trainer.method)
    assert_equal(state_of(trainer), before)
