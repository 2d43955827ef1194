"""What is written while training goes on is the state of the step that asked for it."""

from __future__ import annotations

import random
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests_support.in_process import METHODS, different, tiny_trainer
from tests_support.saving import LARGE, contents_of, names, tensors, writer_of, written
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


@pytest.mark.slow
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
    methods = (
        {name: tensor for name, tensor in remember.states[step].items() if "/method/" in name}
        for step in (1, 2)
    )
    assert different(*methods)  # training does change it


@pytest.mark.slow
def test_what_changes_in_place_after_the_copy_does_not_reach_the_file(tmp_path: Path) -> None:
    """All at once and at once: nothing that training may touch is shared with the thread."""
    trainer = tiny_trainer(tmp_path, *LARGE, "optimizer=adamw", "precision=fp16", "max_steps=2")
    trainer.fit()
    trainer.optimizer.zero_grad()
    writer, later = writer_of(trainer), checkpoint.changed_by_step(trainer.method)
    for step in (3, 4):  # the second copy goes where the first one was
        expected = deepcopy(tensors(contents_of(trainer, step)))
        path = writer.save(step, contents_of(trainer, step))
        for name, tensor in trainer.method.state_dict().items():
            if ("shared.pt", "method", name) not in later:
                tensor.add_(1)
        trainer.optimizer.step()  # without gradients nothing moves: only the thread is waited for
        for tensor in tensors(trainer.optimizer.state_dict()["state"]).values():
            tensor.add_(1)
        for tensor in trainer.method.backbone.state_dict().values():
            tensor.add_(1)
        trainer.optimizer.param_groups[0]["lr"] = 7.0 + step
        trainer.precision.scaler.update(new_scale=2.0**step)
        torch.rand(())
        writer.wait()
        assert not different(written(path), expected)
        assert different(expected, tensors(contents_of(trainer, step)))
    writer.close()


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_only_the_optimizer_changes_what_is_copied_beside_a_step(
    method: str, tmp_path: Path
) -> None:
    """Over two epochs, with their codes made anew: from the end of a step to the next update.

    What the optimizer forgets of parameters that start again is gone from it, and unchanged.
    """
    extra = ["method.queue_samples=24", "method.queue_start_epoch=0"] if method == "swav" else []
    trainer = tiny_trainer(tmp_path, f"method={method}", "hooks={}", *extra, "max_steps=8")
    later = checkpoint.changed_by_step(trainer.method)
    before: list[dict[str, Tensor]] = []
    changed: list[list[str]] = []
    gone: list[set[str]] = []

    def late() -> dict[str, Tensor]:
        files = contents_of(trainer, trainer.step)
        return tensors({place: files[place[0]][place[1]][place[2]] for place in later})

    class AtTheEnd(Hook):
        def step_done(self, trainer: Trainer) -> None:
            before.append(deepcopy(late()))

    trainer.hooks.append(AtTheEnd(None))

    def compare(*_: object) -> None:
        if before:
            now = late()
            gone.append(set(before[-1]) - set(now))
            changed.append(different({name: before[-1][name] for name in now}, now))

    trainer.optimizer.register_step_pre_hook(compare)
    trainer.fit()
    assert changed == [[]] * 7
    # Only at the start of the second epoch, behind the fourth step, and only of what starts again.
    renewed = bool(list(trainer.method.renewed()))
    assert [bool(names) for names in gone] == [False] * 3 + [renewed] + [False] * 3
    assert different(before[-2], before[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "larc", "lars", "sgd"])
def test_slots_are_copied_before_the_optimizer_changes_them(name: str, tmp_path: Path) -> None:
    """`optimizer.step` comes right behind `save`, and the thread has 80 MB or more to copy."""
    named = [(f"{n}.weight", torch.nn.Parameter(torch.ones(2_500_000, 1))) for n in range(8)]
    cls = get("optimizer", name)
    optimizer = cls(cls.Config(), named_parameters=named)
    optimizer.param_groups[0]["lr"] = 0.1
    for _, parameter in named:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    later = [("shared.pt", "optimizer", "state")]
    writer = BackgroundWriter(tmp_path, optimizer, later=later, keep=3)
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_next_checkpoint_waits_for_the_last_one(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, *LARGE)
    writer = writer_of(trainer)
    first = writer.save(1, contents_of(trainer, 1))
    second = writer.save(2, contents_of(trainer, 2))
    checkpoint.load(first)
    writer.wait()
    assert checkpoint.newest(trainer.run.checkpoints) == second
    writer.close()


@pytest.mark.slow
def test_the_end_of_the_run_waits_for_the_last_one(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, *LARGE, "max_steps=1")
    trainer.fit()
    assert names(trainer.run.checkpoints) == ["00000001", "last"]
