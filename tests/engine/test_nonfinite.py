"""A loss that is no number stops the run, keeps what was good and says which samples were in it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from tests_support.command import TINY, unlabeled
from tests_support.in_process import different, state_of, tiny_trainer
from tests_support.ranks import run_ranks
from unlabeled.engine import checkpoint
from unlabeled.engine.nonfinite import NAME, check_finite
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.engine.trainer import Trainer
from unlabeled.errors import DivergenceError
from unlabeled.methods.base import MethodOutput

DIVERGING = (
    "optimizer=sgd",
    "scheduler=constant",
    "scheduler.lr=1e30",
    "hooks.knn_probe=null",
    "checkpoint.every_steps=1",
)


def divergence(trainer: Trainer) -> str:
    with pytest.raises(DivergenceError) as caught:
        trainer.fit()
    return str(caught.value)


@pytest.mark.slow
def test_the_run_stops_before_the_update_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, *DIVERGING)
    said = divergence(trainer)
    assert trainer.step >= 1  # the first step was finite, its update was not
    assert f"nan at step {trainer.step}" in said
    assert str(tmp_path / NAME) in said
    newest = checkpoint.newest(trainer.run.checkpoints)
    assert newest is not None
    assert checkpoint.load(newest).shared["step"] == trainer.step
    losses = [r["loss"] for r in RunDirectory(tmp_path).metrics() if r["phase"] == "train"]
    assert len(losses) == trainer.step
    assert all(map(math.isfinite, losses))


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_samples_of_the_batch_are_named(accumulate: int, tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, *DIVERGING, f"accumulate_steps={accumulate}")
    divergence(trainer)
    found = json.loads((tmp_path / NAME).read_text())
    assert found["step"] == trainer.step
    again = tiny_trainer(tmp_path, *DIVERGING, f"accumulate_steps={accumulate}")
    batches = again.data.training(trainer.step, trainer.step + 1)
    expected = [i for batch in batches for i in batch.indices.tolist()]
    assert len(expected) == 12
    assert found["samples_by_rank"] == {"0": expected}


def outputs_of(*losses: float) -> list[MethodOutput]:
    return [MethodOutput(loss=torch.tensor(loss)) for loss in losses]


def _means_of_a_rank(folder: str) -> dict[str, float]:
    from unlabeled.distributed import comm

    outputs = [
        MethodOutput(torch.tensor(loss), {"share": torch.tensor(10.0 ** comm.rank() * share)})
        for loss, share in ((1.0 + comm.rank(), 3.0), (2.0, 5.0))
    ]
    return check_finite(outputs, [], RunDirectory(Path(folder)), 0)


def test_means_are_over_micro_batches_and_ranks(tmp_path: Path) -> None:
    expected = {"loss": (1 + 2 + 2 + 2) / 4, "share": (3 + 5 + 30 + 50) / 4}
    assert run_ranks(_means_of_a_rank, 2, str(tmp_path)) == [expected] * 2


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_bad_micro_batch_is_enough(bad: float, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert check_finite(outputs_of(1.0, 2.0), [], run, 3) == {"loss": 1.5}
    with pytest.raises(DivergenceError, match="at step 3"):
        check_finite(outputs_of(1.0, bad), [], run, 3)


@pytest.mark.slow
def test_weights_are_those_before_the_step(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, "method=simclr", "hooks.knn_probe=null")
    trainer.method.loss.register_forward_hook(lambda module, inputs, loss: loss * math.nan)
    parameters = {n: p.detach().clone() for n, p in trainer.method.named_parameters()}
    divergence(trainer)
    assert not different(parameters, {n: p.detach() for n, p in trainer.method.named_parameters()})
    assert checkpoint.newest(trainer.run.checkpoints) is None


def _diverges_on_rank_1(folder: str) -> tuple[str, list[int], bool]:
    """Only rank 1 has a bad loss: what a rank says, its samples, and whether its weights stayed."""
    from unlabeled.distributed import comm

    choices = ("method=simclr", "launch.processes=2", "hooks.knn_probe=null")
    trainer = tiny_trainer(Path(folder), *choices)
    before = state_of(trainer)
    if comm.rank() == 1:
        trainer.method.loss.register_forward_hook(lambda module, inputs, loss: loss * math.inf)
    (batch,) = trainer.data.training(0, 1)
    parameters = {name for name, _ in trainer.method.named_parameters()}
    said = divergence(trainer)
    changed = set(different(before, state_of(trainer))) & parameters
    return said, batch.indices.tolist(), not changed


@pytest.mark.slow
def test_on_two_ranks_both_stop_and_the_rank_at_fault_is_named(tmp_path: Path) -> None:
    (first, _, kept), (second, samples, also_kept) = run_ranks(
        _diverges_on_rank_1, 2, str(tmp_path)
    )
    assert first == second
    assert kept and also_kept
    found = json.loads((tmp_path / NAME).read_text())
    assert found == {"step": 0, "samples_by_rank": {"1": samples}}


@pytest.mark.slow
def test_the_command_ends_with_its_own_status_and_one_line(tmp_path: Path) -> None:
    ended = unlabeled(
        *("pretrain", *TINY, *DIVERGING, "run.dir=run", "launch.processes=2"), cwd=tmp_path
    )
    assert ended.returncode == 6
    (line,) = ended.stderr.splitlines()
    assert line.startswith("unlabeled: the loss became nan at step")
    assert "clip_grad_norm=1" in line
