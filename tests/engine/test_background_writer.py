"""What is written while training goes on is the state of the step that asked for it."""

from __future__ import annotations

import random
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests_support.in_process import contents_of, different, tiny_trainer
from tests_support.saving import LARGE, names, tensors, writer_of, written
from unlabeled.engine import checkpoint
from unlabeled.engine.background_writer import BackgroundWriter
from unlabeled.engine.trainer import Trainer
from unlabeled.hooks.base import Hook
from unlabeled.registry import get

FAST = ("hooks.knn_probe=null", "max_steps=2")


class Remember(Hook):
    """Keeps a copy of the whole state of every step, taken just before it is saved."""

    def __init__(self) -> None:
        self.states: dict[int, dict[str, Tensor]] = {}

    def step_done(self, trainer: Trainer) -> None:
        self.states[trainer.step] = deepcopy(tensors(contents_of(trainer, trainer.step)))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("background", ["true", "false"])
def test_every_file_is_the_state_of_its_step_while_steps_go_on(
    tmp_path: Path, background: str, precision: str
) -> None:
    choices = (f"checkpoint.background={background}", f"precision={precision}")
    trainer = tiny_trainer(
        tmp_path, *LARGE[:1], *choices, "method.queue_samples=100000", LARGE[2],
        "checkpoint.every_steps=1", "checkpoint.keep=20", "max_steps=6",
    )  # fmt: skip
    remember = Remember()
    trainer.hooks.insert(0, remember)
    trainer.fit()
    assert names(trainer.run.checkpoints) == [*(f"{n:08d}" for n in range(1, 7)), "last"]
    for step, state in remember.states.items():
        assert not different(written(trainer.run.checkpoints / f"{step:08d}"), state)
    assert different(remember.states[1], remember.states[2])  # training does change it


def test_what_changes_in_place_after_the_copy_does_not_reach_the_file(tmp_path: Path) -> None:
    """All at once and at once: nothing that training may touch is shared with the thread."""
    trainer = tiny_trainer(tmp_path, *LARGE, "optimizer=adamw", "precision=fp16", "max_steps=2")
    trainer.fit()
    trainer.optimizer.zero_grad()
    writer = writer_of(trainer)
    for step in (3, 4):  # the second copy goes where the first one was
        expected = deepcopy(tensors(contents_of(trainer, step)))
        path = writer.save(step, contents_of(trainer, step))
        trainer.optimizer.step()  # without gradients nothing moves: only the thread is waited for
        with torch.no_grad():
            for tensor in tensors(trainer.optimizer.state_dict()["state"]).values():
                tensor.add_(1)
            for tensor in trainer.method.state_dict().values():
                tensor.add_(1)
        trainer.optimizer.param_groups[0]["lr"] = 7.0 + step
        trainer.precision.scaler.update(new_scale=2.0**step)
        torch.rand(())
        writer.wait()
        assert not different(written(path), expected)
        assert different(expected, tensors(contents_of(trainer, step)))
    writer.close()


@pytest.mark.parametrize("name", ["adamw", "larc", "lars", "sgd"])
def test_slots_are_copied_before_the_optimizer_changes_them(name: str, tmp_path: Path) -> None:
    """`optimizer.step` comes right behind `save`, and the thread has 80 MB or more to copy."""
    parameter = torch.nn.Parameter(torch.ones(20_000_000, 1))
    cls = get("optimizer", name)
    optimizer = cls(cls.Config(), named_parameters=[("weight", parameter)])
    optimizer.param_groups[0]["lr"] = 0.1
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    writer = BackgroundWriter(tmp_path, optimizer, keep=3)
    for step in (1, 2):  # the second copy goes where the first one was
        state = {"optimizer": optimizer.state_dict()}
        expected = deepcopy(tensors(state["optimizer"]["state"]))
        path = writer.save(step, {"rank0000.pt": {}, "shared.pt": state})
        optimizer.step()
        writer.wait()
        assert different(expected, tensors(optimizer.state_dict()["state"]))
        saved = torch.load(path / "shared.pt", weights_only=True)
        assert not different(tensors(saved["optimizer"]["state"]), expected)
    writer.close()


def test_both_ways_write_the_same_bytes(tmp_path: Path) -> None:
    """The state is the same, so is what the files hold, down to the last byte."""
    for way in ("true", "false"):
        choices = ("checkpoint.every_steps=1", f"checkpoint.background={way}")
        torch.manual_seed(0)
        random.seed(0)
        tiny_trainer(tmp_path / way, *FAST, *choices).fit()
    for file in ("shared.pt", "rank0000.pt"):
        one, other = (tmp_path / w / "checkpoints" / "00000002" / file for w in ("true", "false"))
        assert one.read_bytes() == other.read_bytes()


def test_the_next_checkpoint_waits_for_the_last_one(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, *LARGE)
    writer = writer_of(trainer)
    first = writer.save(1, contents_of(trainer, 1))
    second = writer.save(2, contents_of(trainer, 2))
    checkpoint.load(first)
    writer.wait()
    assert checkpoint.newest(trainer.run.checkpoints) == second
    writer.close()


def test_the_end_of_the_run_waits_for_the_last_one(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, *LARGE, "max_steps=1")
    trainer.fit()
    assert names(trainer.run.checkpoints) == ["00000001", "last"]
