"""A step means the same however its batch is divided: in one piece, micro-batches or processes.

Batch normalisation is what would tell pieces apart, so it uses its running statistics here.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests_support.in_process import tiny_trainer
from tests_support.ranks import run_ranks
from unlabeled.engine.trainer import Trainer

SUPERVISED = ("method=supervised", "hooks.knn_probe=null")


def first_step(run: Path, *overrides: str) -> tuple[Trainer, dict[str, Tensor], float]:
    """The trainer, its gradients of the first step and its mean loss."""
    trainer = tiny_trainer(run, *SUPERVISED, *overrides)
    trainer.method.eval()
    micro_batches = trainer.fetch(trainer.data.training(0, 1))
    outputs = trainer.forward_backward(micro_batches)
    gradients = {n: p.grad for n, p in trainer.method.named_parameters() if p.grad is not None}
    return trainer, gradients, float(torch.stack([o.loss.detach() for o in outputs]).mean())


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys() and ours
    for name in ours:
        scale = float(theirs[name].abs().max())
        # Sums of float32 in another order.
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-4 * scale + 1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [2, 3, 12])
def test_accumulated_gradients_are_those_of_the_whole_batch(pieces: int, tmp_path: Path) -> None:
    _, whole, loss = first_step(tmp_path / "whole")
    _, parts, mean = first_step(tmp_path / "parts", f"accumulate_steps={pieces}")
    assert_close(parts, whole)
    assert mean == pytest.approx(loss, rel=1e-5)


@pytest.mark.slow
def test_so_is_the_update_with_a_clipped_gradient(tmp_path: Path) -> None:
    """Clipping sees the gradient of the whole step, once."""
    weights = []
    for pieces in (1, 3):
        trainer, gradients, _ = first_step(
            tmp_path / str(pieces), f"accumulate_steps={pieces}", "clip_grad_norm=0.5"
        )
        before = torch.cat([g.flatten() for g in gradients.values()]).norm()
        assert before > 0.5
        trainer.update()
        after = [p.grad for p in trainer.method.parameters() if p.grad is not None]
        clipped = torch.cat([g.flatten() for g in after]).norm()
        assert float(clipped) == pytest.approx(0.5, rel=1e-3)
        weights.append({n: p.detach() for n, p in trainer.method.named_parameters()})
    assert_close(*weights)


def test_gradients_of_the_last_step_are_gone(tmp_path: Path) -> None:
    trainer, first, _ = first_step(tmp_path, "accumulate_steps=2")
    kept = {name: gradient.clone() for name, gradient in first.items()}
    trainer.forward_backward(trainer.fetch(trainer.data.training(0, 1)))
    again = {n: p.grad for n, p in trainer.method.named_parameters() if p.grad is not None}
    assert_close(again, kept)


def _first_step_of_a_rank(
    folder: str, pieces: int
) -> tuple[dict[str, Tensor], float, list[list[int]]]:
    from unlabeled.distributed import comm

    trainer, gradients, mean = first_step(
        Path(folder), "launch.processes=2", f"accumulate_steps={pieces}"
    )
    mean = float(comm.all_reduce_sum(torch.tensor(mean))) / 2
    indices = [batch.indices.tolist() for batch in trainer.data.training(0, 1)]
    return gradients, mean, indices


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [1, 3])
def test_two_processes_compute_the_same_step(pieces: int, tmp_path: Path) -> None:
    alone, whole, loss = first_step(tmp_path / "whole")
    ranks = run_ranks(_first_step_of_a_rank, 2, str(tmp_path / "ranks"), pieces)
    for gradients, mean, _ in ranks:
        assert_close(gradients, whole)
        assert mean == pytest.approx(loss, rel=1e-5)
    (batch,) = alone.data.training(0, 1)
    shares = [indices for _, _, micro_batches in ranks for indices in micro_batches]
    assert {len(share) for share in shares} == {12 // (2 * pieces)}
    assert sorted(i for share in shares for i in share) == sorted(batch.indices.tolist())


@pytest.mark.parametrize("pieces", [1, 3])
def test_an_epoch_shows_every_sample_once(pieces: int, tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, *SUPERVISED, f"accumulate_steps={pieces}")
    epochs = []
    for epoch in (0, 1):
        found = list(trainer.data.training(4 * epoch, 4 * epoch + 4))
        assert len(found) == 4 * pieces
        epochs.append([i for batch in found for i in batch.indices.tolist()])
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(48))
    assert epochs[0] != epochs[1]
