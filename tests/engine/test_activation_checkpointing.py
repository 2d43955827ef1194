"""Activations that are computed twice change nothing that is computed from them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests_support.in_process import different, state_of, trained
from tests_support.ranks import run_ranks
from unlabeled.distributed import comm
from unlabeled.engine.activation_checkpointing import checkpoint_activations
from unlabeled.engine.run_directory import RunDirectory


def losses(run: Path) -> list[float]:
    return [r["loss"] for r in RunDirectory(run).metrics() if r["phase"] == "train"]


def _same_run(folder: str) -> list[str]:
    states, found = [], []
    for kept in ("none", "stage"):
        run = Path(folder, kept)
        choices = (f"activation_checkpointing={kept}", f"launch.processes={comm.world_size()}")
        trainer = trained(run, *choices, "hooks.knn_probe=null", "max_steps=4")
        states.append(state_of(trainer))
        found.append(losses(run))
    assert len(found[0]) == 4
    assert found[0] == found[1]
    return different(*states)


@pytest.mark.slow
def test_a_run_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    assert _same_run(str(tmp_path)) == []


@pytest.mark.slow
def test_synchronised_batch_normalisation_is_counted_once(tmp_path: Path) -> None:
    assert run_ranks(_same_run, 2, str(tmp_path)) == [[], []]


def test_of_a_stage_its_input_alone_is_kept() -> None:
    def kept(again: bool) -> int:
        torch.manual_seed(0)
        stages = [nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)) for _ in range(2)]
        model = nn.Sequential(*stages)
        if again:
            checkpoint_activations(stages)
        sizes: list[int] = []
        inputs = torch.randn(100, 8, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: (sizes.append(t.numel() if len(t) == 100 else 0), t)[1], lambda t: t
        ):
            model(inputs)
        return sum(sizes) // 800

    assert kept(again=False) == 2 * 3
    assert kept(again=True) == 2


def test_random_layers_draw_the_same_numbers_again() -> None:
    layers = nn.Sequential(nn.Linear(20, 20), nn.Dropout(0.5), nn.Linear(20, 20))
    inputs, gradients = torch.randn(4, 20), []
    for again in (False, True):
        if again:
            checkpoint_activations([layers])
        torch.manual_seed(1)
        layers.zero_grad()
        layers(inputs.requires_grad_()).square().sum().backward()
        gradients.append([p.grad.clone() for p in layers.parameters() if p.grad is not None])
    assert len(gradients[0]) == 4
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
