"""DINO's targets against the official loss: centre, temperature, and two ranks as one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests_support.ranks import run_ranks
from unlabeled.assigners.centering import Centering
from unlabeled.config.check import build_config
from unlabeled.distributed import comm
from unlabeled.errors import ConfigError
from unlabeled.losses.swav import SwAVLoss
from unlabeled.methods.base import Progress

DATA = Path(__file__).parents[1] / "data"


def make(width: int, **fields: Any) -> Centering:
    assigner = Centering(Centering.Config(**fields))
    assigner.begin(width)
    return assigner


def at_epoch(epoch: int) -> Progress:
    return Progress(5 * epoch, 5, 500)


def golden() -> dict[str, np.ndarray]:
    with np.load(DATA / "dino_loss.npz", allow_pickle=False) as file:
        return dict(file)


def official_temperatures(file: dict[str, np.ndarray]) -> dict[str, Any]:
    return {
        "warmup_temperature": float(file["set_warm"]),
        "temperature": float(file["set_T"]),
        "warmup_epochs": int(file["set_wep"]),
        "momentum": float(file["set_cm"]),
    }


def compare_with_official_loss() -> None:
    """Three steps of epochs 0, 12 and 60: loss, gradient and centre, on this rank."""
    file = golden()
    prefix = f"w{comm.world_size()}_r{comm.rank()}_"
    get = {k.removeprefix(prefix): v for k, v in file.items() if k.startswith(prefix)}
    assigner = make(int(file["set_K"]), **official_temperatures(file))
    loss = SwAVLoss(SwAVLoss.Config(temperature=float(file["set_st"])))
    views, centres = int(file["set_V"]), get["center_before_and_after"]
    for step, epoch in enumerate(file["set_epochs"].tolist()):
        np.testing.assert_allclose(assigner.center, centres[step][0], atol=1e-6)
        assigner.before_step(at_epoch(epoch))
        student = torch.from_numpy(get["student"][step]).requires_grad_()
        codes = assigner(torch.from_numpy(get["teacher"][step])).chunk(2)
        found = loss(student, dict(enumerate(codes)), views)
        found.backward()
        assert float(found.detach()) == pytest.approx(float(get["loss"][step]), abs=5e-6, rel=1e-6)
        assert student.grad is not None
        np.testing.assert_allclose(student.grad, get["grad_student"][step], atol=1e-6)
        assigner.after_step()
        np.testing.assert_allclose(assigner.center, centres[step + 1][0], atol=1e-6)


def test_three_steps_equal_the_official_loss() -> None:
    compare_with_official_loss()


@pytest.mark.slow
def test_two_ranks_equal_the_official_loss() -> None:
    run_ranks(compare_with_official_loss, 2)


def test_every_epoch_s_temperature_is_the_official_one() -> None:
    file = golden()
    assigner = make(4, **official_temperatures(file))
    expected = file["w1_r0_teacher_temp_schedule"]
    np.testing.assert_allclose(
        [assigner.temperature_of(epoch) for epoch in range(len(expected))], expected, rtol=1e-15
    )


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (0, [0.07] * 4),
        (1, [0.04, 0.07, 0.07]),
        (2, [0.04, 0.07, 0.07]),
        (4, [0.04, 0.05, 0.06, 0.07]),
    ],
)
def test_the_temperature_rises_in_equal_steps(epochs: int, expected: list[float]) -> None:
    assigner = make(3, warmup_temperature=0.04, temperature=0.07, warmup_epochs=epochs)
    found = []
    for epoch in range(len(expected)):
        assigner.before_step(at_epoch(epoch))
        found.append(assigner.temperature)
    assert found == pytest.approx(expected, rel=1e-12)


def by_the_equation(scores: Tensor, center: Tensor, temperature: float) -> list[list[float]]:
    rows = []
    for row in scores.double().tolist():
        logits = [(s - c) / temperature for s, c in zip(row, center.tolist(), strict=True)]
        exponentials = [math.exp(logit - max(logits)) for logit in logits]
        rows.append([e / sum(exponentials) for e in exponentials])
    return rows


def test_codes_are_the_equation_and_the_centre_a_hand_computed_average() -> None:
    assigner = make(2, temperature=0.5, warmup_temperature=0.5, momentum=0.75)
    batches = [
        torch.tensor([[1.0, 0.0], [3.0, 4.0]]),
        torch.tensor([[0.0, 8.0], [2.0, 0.0]]),
        torch.tensor([[4.0, 4.0]]),
    ]
    # Means (2, 2), (1, 4), (4, 4): c = 1/2, then 3/8 + 1/4 and 3/8 + 1, then ...
    centres = [[0.0, 0.0], [0.5, 0.5], [0.625, 1.375], [1.46875, 2.03125]]
    for batch, before, after in zip(batches, centres, centres[1:], strict=False):
        assert assigner.center.tolist() == before
        expected = by_the_equation(batch, torch.tensor(before), 0.5)
        torch.testing.assert_close(assigner(batch), torch.tensor(expected))
        assigner.after_step()
        assert assigner.center.tolist() == after


def test_micro_batches_move_the_centre_as_their_step_does() -> None:
    scores = torch.randn(12, 5)
    whole, parts = make(5), make(5)
    codes = whole(scores)
    torch.testing.assert_close(torch.cat([parts(piece) for piece in scores.chunk(3)]), codes)
    assert float(parts.center.abs().max()) == 0  # not before the step is over
    whole.after_step()
    parts.after_step()
    torch.testing.assert_close(parts.center, whole.center)
    parts.after_step()
    torch.testing.assert_close(parts.center, whole.center)


@pytest.mark.parametrize(("momentum", "share"), [(0.0, 1.0), (1.0, 0.0)])
def test_momentum_zero_is_the_last_mean_and_one_no_centre(momentum: float, share: float) -> None:
    assigner = make(5, momentum=momentum)
    for seed in range(3):
        scores = torch.randn(8, 5, generator=torch.Generator().manual_seed(seed))
        assigner(scores)
        assigner.after_step()
        torch.testing.assert_close(assigner.center, share * scores.mean(dim=0))


def test_temperature_zero_is_the_limit_of_small_ones() -> None:
    scores = torch.randperm(40).view(8, 5).double() / 10  # no two nearly equal
    hard = make(5, temperature=0.0, warmup_temperature=0.0)
    nearly = make(5, temperature=1e-4, warmup_temperature=1e-4)
    for assigner in (hard, nearly):
        assigner.center.copy_(torch.tensor([0.03, 2.0, -1.01, 0.52, 0.05]))
    assert set(hard(scores).unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(hard(scores), nearly(scores), atol=1e-6, rtol=0)


def test_half_scores_are_computed_in_float32() -> None:
    scores = torch.randn(8, 5).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        codes = make(5)(scores)
    assert codes.dtype == torch.float32
    assert torch.equal(codes, make(5)(scores.float()))


def test_faults_name_the_field() -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(Centering.Config, {"temperature": -0.1, "momentum": 1.5})
    message = str(caught.value)
    assert "temperature: must be 0 or more" in message
    assert "momentum: must lie between 0" in message
