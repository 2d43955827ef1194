"""A run whose parameters are divided among the ranks trains as one whose ranks hold them all."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from tests_support.command import TINY
from tests_support.in_process import METHODS, built, tiny_config, tiny_trainer
from tests_support.ranks import run_ranks
from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.config.derived import derive_lengths
from unlabeled.config.schema import PretrainConfig
from unlabeled.distributed import comm
from unlabeled.distributed.shards import is_sharded, local
from unlabeled.distributed.shards import whole as all_rows
from unlabeled.engine import checkpoint
from unlabeled.engine.build import build_method
from unlabeled.engine.pretrain import pretrain
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.engine.sharding import build_parallel
from unlabeled.engine.trainer import Trainer
from unlabeled.errors import ConfigError, DivergenceError, EnvironmentProblem
from unlabeled.evaluation.subject import backbone_state
from unlabeled.methods.base import Method
from unlabeled.models.backbone_files import load_backbone_state

SAME = 1e-5
"""Of a loss: gradients are summed in another order."""
LARC = ("optimizer=larc", "scheduler.lr=0.1")
FSDP = "sharding=fsdp"
SHORT = ("backbone.stages=1", "dataset.num_samples=24")
"""An epoch has two steps."""
ALONE = "sync_batch_norm.enabled=false"
"""A synchronised layer waits for the other rank twice a pass; the shorter tests have them."""
ONE_FORWARD = "transform.crops=[{count: 2, size: 16, scale: [0.3, 1.0], role: global}]"
STOPPED, END = 3, 5
"""Steps: in the middle of the second epoch, and of the third."""


class Trained(NamedTuple):
    """What a run leaves, whole tensors."""

    first: dict[str, Tensor]
    losses: list[float]
    held: int
    """Numbers in the parameters of rank 0, and in the gradients that it has at the end."""


def whole(trainer: Trainer) -> dict[str, Tensor]:
    state = trainer.method.state_dict()
    return {n: all_rows(t).detach().clone() for n, t in state.items()}


def _trains(folder: str, cases: list[tuple[str, ...]]) -> list[tuple[Trained, Trained]]:
    """Of each case the same run with whole and with sharded parameters."""
    results = []
    for number, overrides in enumerate(cases):
        run = Path(folder, str(number))
        ranks = f"launch.processes={comm.world_size()}"
        config = tiny_config(run / "none", ranks, "hooks.knn_probe=null", *overrides)
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
    return Trained(first, losses(Path(config.run.dir)), held)


def losses(run: Path) -> list[float]:
    return [r["loss"] for r in RunDirectory(run).metrics() if r["phase"] == "train"]


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
    cases = [(*SHORT, ALONE, f"method={method}", "max_steps=3") for method in METHODS]
    for data_parallel, sharded in run_ranks(_trains, 2, str(tmp_path), cases)[0]:
        assert_same(data_parallel, sharded, 3)


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
    return equal(state, build().state_dict()) and any(map(is_sharded, method.parameters()))


@pytest.mark.slow
def test_a_model_that_cannot_be_built_in_pieces_is_divided_when_it_is_whole(tmp_path: Path) -> None:
    assert run_ranks(_built_otherwise, 2, str(tmp_path)) == [True, True]


def _measured(folder: str, overrides: tuple[str, ...]) -> list[dict[str, Any]]:
    """What the probes say of a run whose ranks have unequal shares of its 13 test images."""
    composed = compose_config(
        "pretrain",
        [
            *(key for key in TINY if not key.startswith("hooks.")),
            *(*SHORT, *LARC, "max_steps=2", "dataset.num_test_samples=13", "launch.processes=2"),
            *(
                "hooks.knn_probe.k=3",
                "~hooks.comparison_table.benchmarks.linear",
                *overrides,
            ),
        ],
    )
    config = build_config(
        PretrainConfig, composed.data | {"run": {"dir": folder}}, composed.problems
    )
    pretrain(config, torch.device("cpu"))
    results = [json.loads(p.read_text()) for p in sorted(Path(folder, "results").glob("*.json"))]
    probes = [r for r in RunDirectory(folder).metrics() if r["phase"] == "epoch"]
    return [*(r["metrics"] for r in results), *({"knn": r["knn_top1"]} for r in probes)]


@pytest.mark.slow
def test_probes_measure_a_sharded_backbone(tmp_path: Path) -> None:
    found = [
        run_ranks(_measured, 2, str(tmp_path / str(len(more))), more)[0] for more in ((), (FSDP,))
    ]
    assert len(found[0]) > 1
    assert found[0] == found[1]


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


def test_one_process_has_nothing_to_divide(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, FSDP)
    assert not any(map(is_sharded, trainer.method.parameters()))


def _state(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Whole tensors of the method and of the optimizer."""
    slots = trainer.optimizer.state_dict()["state"]
    found = {
        f"{n}/{key}": torch.as_tensor(t) for n, slot in slots.items() for key, t in slot.items()
    }
    gathered = {n: all_rows(t).clone() for n, t in found.items()}
    return whole(trainer), gathered


def _leaves(run: str, until: int, overrides: tuple[str, ...]) -> list[float]:
    """Train to a step, from whatever checkpoint is there, and say what the losses were."""
    ranks = f"launch.processes={comm.world_size()}"
    choices = (ranks, "hooks.knn_probe=null", f"max_steps={until}", *SHORT, *overrides)
    pretrain(tiny_config(Path(run), *choices), torch.device("cpu"))
    return losses(Path(run))


def _restored(path: str, folder: str, overrides: tuple[str, ...]) -> Any:
    ranks = f"launch.processes={comm.world_size()}"
    trainer = tiny_trainer(Path(folder), ranks, *SHORT, *overrides)
    step = checkpoint.restore(
        checkpoint.load(Path(path)),
        method=trainer.method,
        optimizer=trainer.optimizer,
        scaler=trainer.precision.scaler,
    )
    assert step == STOPPED
    return _state(trainer)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks in shards that stopped in the middle of an epoch."""
    path = tmp_path_factory.mktemp("sharded") / "run"
    run_ranks(_leaves, 2, str(path), STOPPED, (*LARC, FSDP))
    return path


def newest(run: Path) -> Path:
    found = checkpoint.newest(run / "checkpoints")
    assert found is not None
    return found


def equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in theirs)


@pytest.mark.slow
def test_a_resumed_run_is_the_run_that_never_stopped(run: Path, tmp_path: Path) -> None:
    alone, resumed = tmp_path / "alone", tmp_path / "resumed"
    shutil.copytree(run, resumed)
    for folder in (alone, resumed):
        run_ranks(_leaves, 2, str(folder), END, (*LARC, FSDP))
    assert losses(resumed) == losses(alone)
    assert len(losses(alone)) == END
    for file in newest(alone).iterdir():
        other = newest(resumed) / file.name
        if file.suffix == ".safetensors":
            assert file.read_bytes() == other.read_bytes(), file.name
    ends = [checkpoint.method_state(checkpoint.load(newest(end))) for end in (alone, resumed)]
    assert equal(*ends)


@pytest.mark.slow
def test_any_number_of_ranks_sharded_or_not_goes_on(run: Path, tmp_path: Path) -> None:
    path, choices = str(newest(run)), (*LARC, FSDP)
    written, slots = run_ranks(_restored, 2, path, str(tmp_path), choices)[0]
    assert any(len(t) for t in slots.values())
    stored = checkpoint.method_state(checkpoint.load(newest(run)))
    assert equal({n: written[n] for n in stored}, stored)
    for ranks, overrides in ((1, choices), (3, choices), (2, LARC)):
        for state, momenta in run_ranks(_restored, ranks, path, str(tmp_path), overrides):
            assert equal(state, written)
            assert equal(momenta, slots)


@pytest.mark.slow
def test_a_run_of_one_process_goes_on_in_shards(tmp_path: Path) -> None:
    run_ranks(_leaves, 1, str(tmp_path / "run"), STOPPED, LARC)
    path = str(newest(tmp_path / "run"))
    [(written, slots)] = run_ranks(_restored, 1, path, str(tmp_path), LARC)
    for state, momenta in run_ranks(_restored, 2, path, str(tmp_path), (*LARC, FSDP)):
        assert equal(state, written)
        assert equal(momenta, slots)
    found = run_ranks(_leaves, 2, str(tmp_path / "run"), END, (*LARC, FSDP))[0]
    assert len(found) == END


@pytest.mark.slow
def test_the_export_and_the_checkpoint_hold_the_whole_backbone(run: Path) -> None:
    trainer = tiny_trainer(run.parent / "other", *SHORT)
    exported = load_backbone_state(run / "weights" / "backbone.safetensors")
    assert equal(exported, backbone_state(newest(run), trainer.method.backbone))
    assert {n: t.shape for n, t in exported.items()} == {
        n: t.shape for n, t in trainer.method.backbone.state_dict().items()
    }
