"""Training on shards that nobody counted, for a stated number of samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests_support.command import TINY
from tests_support.in_process import built_from
from tests_support.same_run import assert_same_run, losses
from tests_support.shards import put_patches
from unlabeled.cli.main import main
from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.config.schema import PretrainConfig
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


def test_methods_that_need_epochs_or_labels_say_so(shards: Path, tmp_path: Path) -> None:
    for method, message in {
        "deepcluster_v2": "is a single pass, and method deepcluster_v2 learns from the epoch",
        "supervised": "the data set has no labels",
    }.items():
        config = configured(tmp_path / method, *arguments(shards, f"method={method}"))
        with pytest.raises(ConfigError, match=message):
            pretrain(config, CPU)


@pytest.mark.slow
def test_a_stream_trains_over_its_passes_and_resumes_bit_for_bit(
    shards: Path, tmp_path: Path
) -> None:
    """70 samples of 40 images in batches of 12: whole batches, so 72, and into the second pass."""
    alone, parts = (configured(tmp_path / n, *arguments(shards)) for n in ("alone", "parts"))
    pretrain(alone, CPU)
    pretrain(replace(parts, max_steps=4), CPU)
    assert set(losses(tmp_path / "parts")) == {1, 2, 3, 4}
    torch.manual_seed(1)  # a process of its own would start elsewhere
    pretrain(parts, CPU)
    assert_same_run(tmp_path / "parts", tmp_path / "alone", steps=6)


def test_a_run_reads_the_first_samples_of_the_stream_each_once_and_no_others(
    shards: Path, tmp_path: Path
) -> None:
    trainer = built_from([*arguments(shards), f"run.dir={tmp_path}"])
    data = trainer.data.training(0, trainer.settings.last_step)
    seen = [index for batch in data for index in batch.indices.tolist()]
    assert sorted(seen) == list(range(72)) and seen != sorted(seen)
    facts = trainer.method.facts
    assert (facts.num_samples, facts.steps_per_epoch, facts.total_steps) == (72, 6, 6)
