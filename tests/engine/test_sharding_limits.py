"""What cannot be divided among the ranks stays whole, and what cannot be done is said."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tests_support.in_process import different, tiny_config, tiny_trainer
from tests_support.ranks import run_ranks
from tests_support.sharded import ALONE, FSDP, SHORT
from unlabeled.config.derived import derive_lengths
from unlabeled.distributed import comm
from unlabeled.distributed.shards import is_sharded
from unlabeled.distributed.shards import whole as all_rows
from unlabeled.engine.build import build_method
from unlabeled.engine.sharding import build_parallel
from unlabeled.errors import ConfigError, DivergenceError, EnvironmentProblem
from unlabeled.methods.base import Method


def _built_otherwise(folder: str) -> bool:
    """Whether a model that cannot be built in pieces is the same in shards."""
    config = tiny_config(Path(folder), f"launch.processes={comm.world_size()}", FSDP)

    def build() -> Method:
        source, pipeline = config.dataset.build(split="train"), config.transform.build()
        method = build_method(config, source, pipeline, derive_lengths(config, len(source)))
        torch.nn.init.orthogonal_(method.backbone.get_parameter("conv1.weight"))
        method.of_no_module = torch.nn.Parameter(torch.rand(4, 4))
        return method

    method, _ = build_parallel(config, build, torch.device("cpu"))
    assert not is_sharded(method.get_parameter("of_no_module"))  # nothing would gather it
    state = {n: all_rows(t) for n, t in method.state_dict().items()}
    return not different(state, build().state_dict()) and any(map(is_sharded, method.parameters()))


@pytest.mark.slow
def test_a_model_that_cannot_be_built_in_pieces_is_divided_when_it_is_whole(tmp_path: Path) -> None:
    assert run_ranks(_built_otherwise, 2, str(tmp_path)) == [True, True]


def _normalises_apart(folder: str) -> None:
    choices = ("method=deepercluster", "head.super_clusters=1", "launch.processes=2", FSDP)
    for one in (ALONE, "sync_batch_norm.group_size=1"):
        with pytest.raises(ConfigError, match=r"than all 2 ranks .*group_size=null"):
            tiny_trainer(Path(folder), *SHORT, *choices, one)


@pytest.mark.slow
def test_ranks_that_would_normalise_super_classes_apart_are_refused(tmp_path: Path) -> None:
    run_ranks(_normalises_apart, 2, str(tmp_path))


def _with_an_old_torch(folder: str) -> None:
    lacking, of_it = "torch.distributed.checkpoint.hf_storage", "unlabeled.distributed.shard_files"
    kept = {name: sys.modules.pop(name) for name in (lacking, of_it) if name in sys.modules}
    sys.modules[lacking] = None  # type: ignore[assignment] # importing it fails
    try:
        with pytest.raises(EnvironmentProblem, match=r"lacks what fsdp needs .*sharding=none"):
            tiny_trainer(Path(folder), f"launch.processes={comm.world_size()}", FSDP)
    finally:
        del sys.modules[lacking]
        sys.modules.update(kept)


@pytest.mark.slow
def test_a_torch_that_is_too_old_is_said_at_the_start(tmp_path: Path) -> None:
    run_ranks(_with_an_old_torch, 2, str(tmp_path))


def _diverges(folder: str) -> None:
    choices = (*SHORT, "optimizer=sgd", "scheduler.lr=1e30", FSDP)
    trainer = tiny_trainer(Path(folder), f"launch.processes={comm.world_size()}", *choices)
    with pytest.raises(DivergenceError):
        trainer.fit()


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_every_rank(tmp_path: Path) -> None:
    run_ranks(_diverges, 2, str(tmp_path))


def test_what_does_not_go_together_is_said_at_load(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="compile: not together with sharding=fsdp"):
        tiny_config(tmp_path, FSDP, "compile=true")


@pytest.mark.slow
def test_one_process_has_nothing_to_divide(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, FSDP)
    assert not any(map(is_sharded, trainer.method.parameters()))
