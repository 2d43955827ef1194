"""Methods may choose the samples of an epoch and look at the whole data set before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests_support.in_process import tiny_trainer
from tests_support.ranks import run_ranks
from unlabeled.distributed import comm
from unlabeled.engine.trainer import Trainer
from unlabeled.methods.base import Progress
from unlabeled.methods.simclr import SimCLR
from unlabeled.registry import register

IN_BATCHES = ("hooks.knn_probe=null", "accumulate_steps=2", "dataset.num_samples=52")
STEPS = 4  # of 12 images, an epoch of 52


class Choosy(SimCLR):
    """Draws a third of the images, other ones every epoch, by what it has counted so far."""

    chooses_samples = True
    epochs_begun: Tensor

    def __init__(self, config: SimCLR.Config, **parts: Any) -> None:
        super().__init__(config, **parts)
        self.register_buffer("epochs_begun", torch.zeros((), dtype=torch.int64))
        self.seen: list[list[int]] = []

    def start_epoch(self, progress: Progress, passes: Any) -> dict[str, float]:
        self.epochs_begun += 1
        return {}

    def epoch_order(self, progress: Progress) -> np.ndarray:
        random = np.random.RandomState(int(self.epochs_begun))
        return random.permutation(self.facts.num_samples)[: self.facts.num_samples // 3].repeat(3)

    def forward(self, batch: Any, micro_step: int) -> Any:
        self.seen.append(batch.indices.tolist())
        return super().forward(batch, micro_step)


@pytest.fixture(autouse=True)
def choosy(forget_registrations: None) -> None:
    register("method", "choosy")(Choosy)


def expected_epoch(epoch: int) -> list[int]:
    order = np.random.RandomState(epoch + 1).permutation(52)[:17].repeat(3)
    return order[: STEPS * 12].tolist()


def choosing(run: Path, *overrides: str) -> Trainer:
    return tiny_trainer(run, "method=simclr", "method.name=choosy", *IN_BATCHES, *overrides)


@pytest.mark.slow
def test_every_epoch_has_the_samples_that_the_method_chose(tmp_path: Path) -> None:
    trainer = choosing(tmp_path)
    trainer.fit()
    found = [index for part in trainer.method.seen for index in part]  # type: ignore[union-attr]
    assert found == [index for epoch in range(3) for index in expected_epoch(epoch)]


@pytest.mark.slow
def test_a_run_that_goes_on_within_an_epoch_has_the_rest_of_them(tmp_path: Path) -> None:
    trainer = choosing(tmp_path)
    trainer.method.epochs_begun.fill_(2)  # as a checkpoint of the second epoch says
    trainer.step = STEPS + 3
    trainer.fit()
    found = [index for part in trainer.method.seen for index in part]  # type: ignore[union-attr]
    assert found == expected_epoch(1)[3 * 12 :] + expected_epoch(2)


def test_a_sample_that_comes_again_has_other_views(tmp_path: Path) -> None:
    trainer = choosing(tmp_path)
    order = np.array([7, 7, 7, 3, 3, 9] * 8)
    [batch] = list(trainer.data.training(0, 1, order))[:1]
    assert batch.indices.tolist() == [7, 7, 7, 3, 3, 9]
    views = batch.views[0]
    assert not torch.equal(views[0], views[1]) and not torch.equal(views[1], views[2])
    # The first time a sample comes, its views are those of any order.
    [other] = list(trainer.data.training(0, 1, np.roll(order, 3)))[:1]
    assert torch.equal(other.views[0][3], views[0])


def shares(run: str) -> tuple[list[int], list[int]]:
    """What this rank is given by the method's order and by a pass over all images."""
    folder = Path(run, str(comm.rank()))
    trainer = tiny_trainer(folder, "method=simclr", *IN_BATCHES, "launch.processes=2")
    batches = trainer.data.training(0, 1, np.arange(52)[::-1].copy())
    central = trainer.data.central_pass()
    return (
        [index for batch in batches for index in batch.indices.tolist()],
        [index for batch in central for index in batch.indices.tolist()],
    )


@pytest.mark.slow
def test_two_ranks_share_the_order_and_the_pass(tmp_path: Path) -> None:
    (first, central), (second, rest) = run_ranks(shares, 2, str(tmp_path))
    # Two micro-batches of six, each one contiguous share per rank.
    assert first == [51, 50, 49, 45, 44, 43] and second == [48, 47, 46, 42, 41, 40]
    assert central + rest == list(range(52)) and len(central) == 26


def test_a_central_pass_is_every_image_once_as_evaluation_sees_it(tmp_path: Path) -> None:
    trainer = choosing(tmp_path)
    batches = list(trainer.data.central_pass())
    assert [i for batch in batches for i in batch.indices.tolist()] == list(range(52))
    assert all(batch.labels is None and len(batch.views) == 1 for batch in batches)
    probe = trainer.probe_data
    assert not isinstance(probe, str)
    pixels = torch.from_numpy(np.stack([probe.train.image(i) for i in range(52)]))  # 16 x 16
    expected = probe.normalize(pixels.permute(0, 3, 1, 2))
    torch.testing.assert_close(torch.cat([batch.views[0] for batch in batches]), expected)


@pytest.mark.slow
def test_what_is_renewed_has_no_past(tmp_path: Path) -> None:
    """The optimizer's slots of these parameters start again, and only theirs."""
    trainer = choosing(tmp_path, "max_steps=3")
    trainer.fit()
    head = set(trainer.method.head.parameters())
    trainer.method.renewed = lambda: head  # type: ignore[method-assign]
    trainer.start_epoch()
    known = set(trainer.optimizer.state)
    assert known == set(trainer.method.backbone.parameters())
