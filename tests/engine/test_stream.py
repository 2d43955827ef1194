"""Training on shards that nobody counted, for a stated number of samples."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests_support.command import TINY
from tests_support.in_process import built_from
from tests_support.notes import notes
from tests_support.ranks import run_ranks
from tests_support.same_run import assert_same_run
from tests_support.shards import put_patches
from unlabeled.cli.main import main
from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.config.schema import PretrainConfig
from unlabeled.data.sources.shards import Shards
from unlabeled.engine.pretrain import pretrain
from unlabeled.errors import ConfigError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 patches of photographs in four shards."""
    folder = tmp_path_factory.mktemp("shards")
    put_patches(folder, images=40, shards=4)
    return folder


def arguments(shards: Path, *more: str) -> list[str]:
    tiny = [each for each in TINY if not each.startswith(("dataset", "epochs", "hooks.knn"))]
    return [
        *tiny,
        *("dataset=shards", f"dataset.root={shards}", "epochs=null"),
        *("sampler=windowed", "sampler.window_samples=16", "samples=70", *more),
    ]


def configured(run: Path, *arguments: str) -> PretrainConfig:
    composed = compose_config("pretrain", [*arguments, f"run.dir={run}"])
    return build_config(PretrainConfig, composed.data, composed.problems)


@pytest.mark.slow
def test_a_length_and_an_order_that_a_stream_can_have_are_asked_for(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(shards, "samples=null", "epochs=2", "sampler=shuffled")
    given.remove("sampler=windowed")
    given.remove("sampler.window_samples=16")
    assert main(["pretrain", *given, f"run.dir={tmp_path}"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "samples: dataset=shards does not know how many images it holds; give epochs=n" in first
    assert "sampler: shuffled jumps over the whole data set" in second


@pytest.mark.slow
def test_methods_that_need_epochs_or_labels_say_so(shards: Path, tmp_path: Path) -> None:
    for method, message in {
        "deepcluster_v2": "is a single pass, and method deepcluster_v2 learns from the epoch",
        "supervised": "the data set has no labels",
    }.items():
        config = configured(tmp_path / method, *arguments(shards, f"method={method}"))
        with pytest.raises(ConfigError, match=message):
            pretrain(config, CPU)


def _trains(run: str, arguments: list[str]) -> None:
    import tests_support.kill_at_step
    import tests_support.note_samples  # noqa: F401 - they register their hooks

    Path(run, "notes").mkdir(parents=True, exist_ok=True)
    note = f"+hooks.note={{name: note_samples, folder: {run}/notes}}"
    pretrain(configured(Path(run), *arguments, note), CPU)


@pytest.mark.slow
def test_two_ranks_that_are_killed_train_on_the_stream_as_if_they_had_not_been(
    shards: Path, tmp_path: Path
) -> None:
    """Two passes over 40 images in 10 steps of 8, windows of half a pass; one killed in the second.

    All that a step holds is what one process gives it, in its order.
    """
    more = ("samples=80", "sampler.window_samples=20", "batch_size=8", "backbone.stages=1")
    saving = ("checkpoint.every_steps=4", "checkpoint.background=false", "hooks.export=null")
    ranks = ("launch.processes=2", "sync_batch_norm.enabled=false")
    given = [*arguments(shards, *more), *saving, *ranks]
    kill = f"+hooks.kill={{name: kill_at_step, steps: [6], memory: {tmp_path}/deaths, rank: 1}}"
    run_ranks(_trains, 2, str(tmp_path / "alone"), given)
    with pytest.raises(RuntimeError, match="rank 1 of 2 died"):
        run_ranks(_trains, 2, str(tmp_path / "killed"), [*given, kill])
    assert (tmp_path / "killed" / "checkpoints" / "00000004" / "shared.pt").is_file()
    run_ranks(_trains, 2, str(tmp_path / "killed"), [*given, kill])
    assert_same_run(tmp_path / "killed", tmp_path / "alone", steps=10)

    seen: dict[int, list[int]] = {}
    for note in notes(tmp_path / "alone" / "notes"):
        seen.setdefault(note.step, []).extend(note.indices)
    trainer = built_from([*arguments(shards, *more), f"run.dir={tmp_path}/one"])
    batches = trainer.data.training(0, trainer.settings.last_step)
    assert seen == {step: batch.indices.tolist() for step, batch in enumerate(batches)}
    source = Shards(Shards.Config(root=str(shards)), split="train")
    for first in (0, 5):
        images = [source.name(index) for step in range(first, first + 5) for index in seen[step]]
        assert len(set(images)) == len(images) == 40


@pytest.mark.slow
def test_a_run_reads_the_first_samples_of_the_stream_each_once_and_no_others(
    shards: Path, tmp_path: Path
) -> None:
    trainer = built_from([*arguments(shards), f"run.dir={tmp_path}"])
    data = trainer.data.training(0, trainer.settings.last_step)
    seen = [index for batch in data for index in batch.indices.tolist()]
    assert sorted(seen) == list(range(72)) and seen != sorted(seen)
    facts = trainer.method.facts
    assert (facts.num_samples, facts.steps_per_epoch, facts.total_steps) == (72, 6, 6)
