"""A run whose parameters are divided among the ranks trains as one whose ranks hold them all."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from tests_support.in_process import METHODS, tiny_trainer
from tests_support.ranks import run_ranks
from unlabeled.distributed import comm
from unlabeled.distributed.shards import is_sharded, local
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.engine.trainer import Trainer
from unlabeled.registry import names

SAME = 1e-5
"""Of a loss: gradients are summed in another order."""
LARC = ("optimizer=larc", "scheduler.lr=0.1")
FSDP = "sharding=fsdp"


class Trained(NamedTuple):
    """What a run leaves, whole tensors."""

    first: dict[str, Tensor]
    last: dict[str, Tensor]
    losses: list[float]
    held: int
    """Numbers in the parameters of rank 0, and in the gradients that it has at the end."""


def whole(trainer: Trainer) -> dict[str, Tensor]:
    state = trainer.method.state_dict()
    return {
        n: (t.full_tensor() if is_sharded(t) else t).detach().clone()  # type: ignore[operator]
        for n, t in state.items()
    }


def _trains(folder: str, cases: list[tuple[str, ...]]) -> list[Trained]:
    results = []
    for number, overrides in enumerate(cases):
        run = Path(folder, str(number))
        ranks = f"launch.processes={comm.world_size()}"
        trainer = tiny_trainer(run, ranks, "hooks.knn_probe=null", *overrides)
        first = whole(trainer)
        trainer.fit()
        held = sum(local(p).numel() for p in trainer.method.parameters())
        held += sum(
            local(p.grad).numel() for p in trainer.method.parameters() if p.grad is not None
        )
        results.append(Trained(first, whole(trainer), losses(run), held))
    return results


def losses(run: Path) -> list[float]:
    return [r["loss"] for r in RunDirectory(run).metrics() if r["phase"] == "train"]


def both(tmp_path: Path, *overrides: str, ranks: int = 2) -> tuple[Trained, Trained]:
    """The same run with whole and with sharded parameters."""
    cases = [overrides, (*overrides, FSDP)]
    one, other = run_ranks(_trains, ranks, str(tmp_path), cases)[0]
    return one, other


def assert_same(data_parallel: Trained, sharded: Trained, steps: int) -> None:
    assert len(data_parallel.losses) == steps
    assert sharded.losses == pytest.approx(data_parallel.losses, rel=SAME)
    assert data_parallel.losses[-1] != data_parallel.losses[0]


@pytest.mark.slow
def test_twenty_steps_are_those_of_data_parallel_training(tmp_path: Path) -> None:
    data_parallel, sharded = both(tmp_path, *LARC, "epochs=10", "max_steps=20")
    assert_same(data_parallel, sharded, 20)
    for name, tensor in data_parallel.first.items():  # no rank built the model, and it is the same
        assert torch.equal(sharded.first[name], tensor), name
    # Biases, normalisation layers and prototypes are whole: less than a tenth.
    assert sharded.held < 0.55 * data_parallel.held


@pytest.mark.slow
def test_every_method_trains_in_shards(tmp_path: Path) -> None:
    cases = [
        (f"method={method}", "max_steps=5", *more) for method in METHODS for more in ((), (FSDP,))
    ]
    results = run_ranks(_trains, 2, str(tmp_path), cases)[0]
    assert set(METHODS) == set(names("method"))
    for data_parallel, sharded in zip(results[::2], results[1::2], strict=True):
        assert_same(data_parallel, sharded, 5)
