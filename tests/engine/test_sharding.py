"""A run whose parameters are divided among the ranks trains as one whose ranks hold them all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from tests_support.command import TINY
from tests_support.in_process import METHODS, built, tiny_config
from tests_support.ranks import run_ranks
from tests_support.same_run import losses
from tests_support.sharded import ALONE, FSDP, LARC, SHORT, whole
from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.config.schema import PretrainConfig
from unlabeled.distributed import comm
from unlabeled.distributed.shards import local
from unlabeled.engine.pretrain import pretrain
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.registry import get

SAME = 1e-5
"""Of a loss: gradients are summed in another order."""
ONE_FORWARD = "transform.crops=[{count: 2, size: 16, scale: [0.3, 1.0], role: global}]"


class Trained(NamedTuple):
    """What a run leaves, whole tensors."""

    first: dict[str, Tensor]
    losses: list[float]
    held: int
    """Numbers in the parameters of rank 0, and in the gradients that it has at the end."""


def _trains(folder: str, cases: list[tuple[str, ...]]) -> list[tuple[Trained, Trained]]:
    """Of each case the same run with whole and with sharded parameters."""
    results = []
    for number, overrides in enumerate(cases):
        run = Path(folder, str(number))
        ranks = f"launch.processes={comm.world_size()}"
        bare = ("hooks.knn_probe=null", "hooks.export=null")
        config = tiny_config(run / "none", ranks, *bare, *overrides)
        sharded = replace(config, sharding="fsdp", run=replace(config.run, dir=str(run / "fsdp")))
        results.append((_trained(config), _trained(sharded)))
    return results


def _trained(config: PretrainConfig) -> Trained:
    trainer = built(config)
    first = whole(trainer)
    trainer.fit()
    parameters = list(trainer.method.parameters())
    held = sum(local(p).numel() for p in parameters)
    held += sum(local(p.grad).numel() for p in parameters if p.grad is not None)
    return Trained(first, list(losses(Path(config.run.dir)).values()), held)


def both(tmp_path: Path, *overrides: str, ranks: int = 2) -> tuple[Trained, Trained]:
    """The same run with whole and with sharded parameters."""
    [pair] = run_ranks(_trains, ranks, str(tmp_path), [overrides])[0]
    return pair


def assert_same(data_parallel: Trained, sharded: Trained, steps: int) -> None:
    assert len(data_parallel.losses) == steps
    assert sharded.losses == pytest.approx(data_parallel.losses, rel=SAME)
    assert data_parallel.losses[-1] != data_parallel.losses[0]


@pytest.mark.slow
def test_twenty_steps_are_those_of_data_parallel_training(tmp_path: Path) -> None:
    data_parallel, sharded = both(
        tmp_path, *SHORT, "backbone.stages=2", ALONE, *LARC, ONE_FORWARD, "epochs=10"
    )
    assert_same(data_parallel, sharded, 20)
    for name, tensor in data_parallel.first.items():  # no rank built the model, and it is the same
        assert torch.equal(sharded.first[name], tensor), name
    # Biases, normalisation layers and prototypes are whole: less than a tenth.
    assert sharded.held < 0.55 * data_parallel.held


@pytest.mark.slow
def test_every_method_trains_in_shards(tmp_path: Path) -> None:
    """SwAV does in the test above, and what is divided in the test below."""
    others = [name for name in METHODS if name != "swav" and not get("method", name).divided]
    cases = [(*SHORT, ALONE, f"method={method}", "max_steps=3") for method in others]
    for data_parallel, sharded in run_ranks(_trains, 2, str(tmp_path), cases)[0]:
        assert_same(data_parallel, sharded, 3)


# An image that comes twice in a batch may exchange its views: here they have no randomness.
DIVIDED = (
    *(*SHORT, "method=deepercluster", "head.super_clusters=1", "head.sub_clusters=8"),
    *("dataset.num_samples=48", "batch_size=16", "accumulate_steps=2", "max_steps=4"),
    *("method.every_epochs=1", "scheduler.lr=0.001", "clip_grad_norm=1"),
    "transform.crops=[{count: 2, size: 16, scale: [1.0, 1.0], role: global, operations: []}]",
)


@pytest.mark.slow
def test_divided_classifiers_train_as_whole_ones(tmp_path: Path) -> None:
    """Two of four super-classes on each of two ranks, and one that the two share."""
    cases = [DIVIDED, (*DIVIDED, "head.rotations=1", *LARC)]
    for data_parallel, sharded in run_ranks(_trains, 2, str(tmp_path), cases)[0]:
        assert_same(data_parallel, sharded, 4)
        assert sharded.held < 0.6 * data_parallel.held


# Sizes at which oneDNN's bfloat16 is right, see test_precision.py.
HALF = (
    *(*SHORT, ALONE),
    *(
        "precision=bf16",
        "dataset.image_size=32",
        "max_steps=2",
        "optimizer=sgd",
        "scheduler.lr=0.01",
    ),
    "transform.crops=[{count: 2, size: 32, scale: [0.3, 1.0], role: global, operations: null}, "
    "{count: 1, size: 20, scale: [0.1, 0.3], role: local, operations: null}]",
)
TOGETHER = (
    *(*SHORT, *LARC, "max_steps=4", "accumulate_steps=2", "clip_grad_norm=0.3"),
    *("activation_checkpointing=stage", "method.codes_over=accumulated_batch"),
    *("method.queue_samples=24", "method.queue_start_epoch=0"),
)


@pytest.mark.slow
def test_half_precision_clipping_accumulation_and_queues_are_as_with_whole_parameters(
    tmp_path: Path,
) -> None:
    # Weights are gathered in bfloat16, in which autocast would have used them.
    cases = [HALF, (*HALF, "precision=fp16"), TOGETHER]
    pairs = run_ranks(_trains, 2, str(tmp_path), cases)[0]
    for (one, other), steps in zip(pairs, (2, 2, 4), strict=True):
        assert_same(one, other, steps)


@pytest.mark.slow
def test_ranks_that_do_not_divide_the_rows_train_the_same(tmp_path: Path) -> None:
    one, other = both(tmp_path, *LARC, "max_steps=2", ranks=3)
    assert_same(one, other, 2)


def _measured(folder: str, cases: list[tuple[str, ...]]) -> list[list[dict[str, Any]]]:
    """What the probes say of runs whose ranks have unequal shares of their 13 test images."""
    return [_probed(Path(folder, str(n)), overrides) for n, overrides in enumerate(cases)]


def _probed(run: Path, overrides: tuple[str, ...]) -> list[dict[str, Any]]:
    choices = [
        *(key for key in TINY if not key.startswith("hooks.")),
        *(*SHORT, *LARC, "max_steps=2", "dataset.num_test_samples=13", "launch.processes=2"),
        *("hooks.knn_probe.k=3", "~hooks.comparison_table.benchmarks.linear", *overrides),
    ]
    composed = compose_config("pretrain", choices)
    data = composed.data | {"run": {"dir": str(run)}}
    pretrain(build_config(PretrainConfig, data, composed.problems), torch.device("cpu"))
    results = [json.loads(p.read_text()) for p in sorted((run / "results").glob("*.json"))]
    probes = [r for r in RunDirectory(run).metrics() if r["phase"] == "epoch"]
    return [*(r["metrics"] for r in results), *({"knn": r["knn_top1"]} for r in probes)]


@pytest.mark.slow
def test_probes_measure_a_sharded_backbone(tmp_path: Path) -> None:
    whole_ones, sharded = run_ranks(_measured, 2, str(tmp_path), [(), (FSDP,)])[0]
    assert len(whole_ones) > 1
    assert sharded == whole_ones
