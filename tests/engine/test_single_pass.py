"""A length in samples that is no more than the data: every image is seen once at most."""

from __future__ import annotations

import logging
import signal
from pathlib import Path

import pytest
from PIL import Image

from tests_support.command import TINY, unlabeled
from tests_support.commands import ROOT, python
from tests_support.in_process import METHODS, different, state_of, tiny_config, tiny_trainer
from tests_support.same_run import assert_same_run
from unlabeled.config.derived import derive_lengths
from unlabeled.data.sources.photo_patches import PhotoPatches
from unlabeled.engine import checkpoint
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.errors import ConfigError
from unlabeled.meters.base import Meter
from unlabeled.methods.base import MethodOutput

OFFLINE = ("deepcluster_v2", "sela_v2", "deepcluster", "deepercluster")


@pytest.mark.slow
@pytest.mark.parametrize("method", OFFLINE)
def test_methods_that_need_epochs_say_so_at_load(method: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"samples: 48 of 48 .* method {method} learns from"):
        tiny_trainer(tmp_path, f"method={method}", "epochs=null", "samples=48")


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_others_take_a_single_pass_and_all_take_more(method: str, tmp_path: Path) -> None:
    samples = 49 if method in OFFLINE else 48
    trainer = tiny_trainer(tmp_path, f"method={method}", "epochs=null", f"samples={samples}")
    assert trainer.settings.total_steps == -(-samples // 12)


def tiny(*more: str) -> list[str]:
    """TINY without its data set and its length."""
    kept = [each for each in TINY if not each.startswith(("dataset", "epochs", "backbone"))]
    return [*kept, "epochs=null", *more]


REGNET = [
    *("backbone=regnet", "backbone.depth=4", "backbone.w0=8", "backbone.wa=8", "backbone.wm=2"),
    *("backbone.group_width=8", "sampler=block_shuffled", "sampler.block_samples=10"),
    *("sampler.window_samples=30", "samples=84", "checkpoint.every_epochs=null"),
    "scheduler.warmup_epochs=0.25",
]


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 patches of photographs as files, packed and indexed by the script."""
    folder = tmp_path_factory.mktemp("patches")
    source = PhotoPatches(PhotoPatches.Config(train_per_picture=5, image_size=16), split="train")
    assert source.labels is not None
    for number in range(len(source)):
        path = folder / "files" / source.classes[source.labels[number]] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(source.image(number)).save(path)
    script = str(ROOT / "extra_scripts" / "make_shards.py")
    options = ["--samples", "10", "--labels", "folder", "--shuffle", "0", "--workers", "1"]
    made = python(script, str(folder / "files"), str(folder / "shards"), *options)
    assert made.returncode == 0, made.stderr
    return folder / "shards" / "index"


def passes(run: Path, patches: Path, *more: str) -> list[str]:
    """One pass over nine tenths of the shards, with every hook of a run that has labels."""
    data = ["dataset=index", f"dataset.root={patches}", f"dataset.test_root={patches}"]
    return ["pretrain", *tiny(*data, *REGNET, f"run.dir={run}", *more)]


@pytest.mark.slow
def test_a_regnet_is_killed_in_the_middle_of_its_pass_and_resumes_bit_for_bit(
    patches: Path, tmp_path: Path
) -> None:
    """7 steps of 12 in one pass of 100, a checkpoint every 24 samples, killed between two.

    That of step 4 may be on its way to the disk; before it began, that of step 2 had arrived.
    """
    saving = ("checkpoint.every_samples=24", "hooks.knn_probe.every_epochs=1")
    kill = [
        "plugins=[tests_support.kill_at_step]",
        f"+hooks.kill={{name: kill_at_step, steps: [5], memory: {tmp_path}/deaths, rank: 0}}",
    ]
    alone = unlabeled(*passes(tmp_path / "alone", patches, *saving), cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    again = passes(tmp_path / "killed", patches, *saving, *kill)
    killed = unlabeled(*again, cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    finished = unlabeled(*again, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "continuing from step" in finished.stdout
    assert_same_run(tmp_path / "killed", tmp_path / "alone", steps=7)
    records = [r for r in RunDirectory(tmp_path / "alone").metrics() if r["phase"] == "epoch"]
    assert [r["step"] for r in records] == list(range(1, 8))
    assert all({"knn_top1", "rank_me", "loss_over_ln_k"} <= set(r) for r in records)
    assert (tmp_path / "alone" / "weights" / "backbone.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("choices", "steps"),
    [
        (["epochs=2"], 4),
        (["epochs=null", "samples=48"], 1),
        (["epochs=null", "samples=360"], 3),
        (["epochs=null", "samples=420"], 4),
        (["epochs=null", "samples=600"], 4),
        (["epochs=null", "samples=4800"], 4),
        (["epochs=null", "samples=96", "round_samples=30"], 3),
        (["epochs=2", "round_samples=12"], 1),
        (["epochs=2", "round_samples=1000"], 84),
    ],
)
def test_a_round_is_an_epoch_of_4_steps_or_a_tenth_of_a_run_by_samples(
    choices: list[str], steps: int, tmp_path: Path
) -> None:
    assert derive_lengths(tiny_config(tmp_path, *choices), 48).round_steps == steps


class Counting(Meter):
    """How many updates there were since the last reset."""

    updates = 0

    def update(self, output: MethodOutput) -> None:
        self.updates += 1

    def compute(self) -> dict[str, float]:
        return {"updates": self.updates}

    def reset(self) -> None:
        self.updates = 0


@pytest.mark.slow
def test_rounds_and_checkpoints_by_samples_know_no_epochs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Epochs of 4 steps of 12, rounds of 3; a checkpoint at every 30 samples and 3 rounds."""
    trainer = tiny_trainer(
        tmp_path,
        *("epochs=null", "samples=120", "round_samples=36", "hooks.knn_probe.every_epochs=2"),
        *("checkpoint.every_epochs=3", "checkpoint.every_samples=30", "checkpoint.keep=20"),
        *("hooks.collapse_alarm.patience_epochs=2", "hooks.collapse_alarm.min_rank=1000"),
    )
    trainer.round.meters.append(Counting(None, method=trainer.method))
    with caplog.at_level(logging.WARNING):
        trainer.fit()
    records = list(RunDirectory(tmp_path).metrics())
    loss = {r["step"]: r["loss"] for r in records if r["phase"] == "train"}
    rounds = [r for r in records if r["phase"] == "epoch"]
    assert [(r["step"], r["updates"]) for r in rounds] == [(3, 3), (6, 3), (9, 3), (10, 1)]
    assert sum("effective rank" in message for message in caplog.messages) == 3
    for first, record in zip((1, 4, 7, 10), rounds, strict=True):
        own = [loss[step] for step in range(first, record["step"] + 1)]
        assert record["loss"] == pytest.approx(sum(own) / len(own))
    assert [r["step"] for r in rounds if "knn_top1" in r] == [6, 10]
    saved = [int(path.name) for path in checkpoint.complete(tmp_path / "checkpoints")]
    by_samples = [s for s in range(1, 11) if 12 * s // 30 > 12 * (s - 1) // 30]
    assert saved == sorted([*by_samples, 9])


@pytest.mark.slow
def test_a_single_pass_does_not_freeze_its_prototypes_to_its_end(tmp_path: Path) -> None:
    """One epoch of many; of a run that is not two, the first hundredth: 5 of 417 steps."""
    data = "dataset.num_samples=5010"
    wanted = {
        "epochs=2": 417,
        "epochs=1": 5,
        "samples=5004": 5,
        "samples=5010": 5,
        "samples=6000": 5,
    }
    for length, steps in wanted.items():
        more = ["epochs=null"] if length.startswith("samples") else []
        trainer = tiny_trainer(tmp_path, data, *more, length)
        assert trainer.method.derived_numbers()["prototypes_frozen"] == f"{steps} steps"


def test_dinos_last_layer_learns_in_a_single_pass(tmp_path: Path) -> None:
    choices = ("method=dino", "epochs=null", "samples=48", "hooks.knn_probe=null")
    trainer = tiny_trainer(tmp_path, *choices)
    assert trainer.method.derived_numbers()["last_layer_frozen"] == "1 steps"
    before = state_of(trainer)
    trainer.fit()
    changed = different(before, state_of(trainer))
    assert "head.last_layer.weight_v" in changed


def test_a_teacher_of_the_last_epoch_needs_a_last_epoch(tmp_path: Path) -> None:
    choices = ("method=dino", "method.teacher=last_epoch", "epochs=null", "samples=48")
    with pytest.raises(ConfigError, match=r"method\.teacher: last_epoch, but .* two epochs"):
        tiny_trainer(tmp_path, *choices)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "told"), [(15, True), (3, True), (2, False)])
def test_a_queue_that_would_never_be_filled_is_told(first: int, told: bool, tmp_path: Path) -> None:
    choices = ("method.queue_samples=24", f"method.queue_start_epoch={first}")
    numbers = tiny_trainer(tmp_path, *choices).method.derived_numbers()
    assert ("never filled" in numbers["queue_per_rank"]) == told
