"""A run goes on with the images that it began with, or says that they are others."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from tests_support.command import TINY
from tests_support.in_process import built
from tests_support.ranks import run_ranks
from tests_support.saving import saved
from tests_support.shards import built as indexed
from tests_support.shards import png, put_images, put_shard
from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.config.schema import PretrainConfig
from unlabeled.data.sources.decoded_cache import DecodedCache
from unlabeled.data.sources.folder import Folder
from unlabeled.distributed import comm
from unlabeled.engine.data_identity import DataIdentity, identity_of
from unlabeled.engine.pretrain import pretrain, write_description
from unlabeled.errors import ConfigError

CPU = torch.device("cpu")
IMAGES = 24


def put_folder(data: Path) -> None:
    put_images(data, *(f"{number:02}.png" for number in range(IMAGES)))


def put_list(data: Path) -> None:
    for shard in range(3):
        members = [(f"{n:02}.png", png(n)) for n in range(shard, IMAGES, 2)]
        put_shard(data / f"{shard}.tar", members)
    (data / "list.txt").write_text("0.tar\n1.tar\n")


def put_index(data: Path) -> None:
    put_folder(data / "in")
    indexed(data / "idx", data / "in")


def replace_index(data: Path) -> None:
    (data / "in" / "23.png").rename(data / "in" / "00b.png")
    shutil.rmtree(data / "idx")
    indexed(data / "idx", data / "in")


class Case(NamedTuple):
    """A kind of data, how it comes to be and to change, and what is said of both."""

    arguments: tuple[str, ...]
    put: Callable[[Path], None]
    change: Callable[[Path], object]
    then: str
    now: str


STREAM = ("epochs=null", "samples=48", "sampler=windowed", "sampler.window_samples=12")
CASES = {
    "an added file": Case(
        ("dataset=folder", "dataset.root=DATA"),
        put_folder,
        lambda data: (data / "05b.png").write_bytes(png(5)),
        *("24 images", "25 images"),
    ),
    "an added shard": Case(
        ("dataset=shards", "dataset.root=DATA/list.txt", *STREAM),
        put_list,
        lambda data: (data / "list.txt").write_text("0.tar\n1.tar\n2.tar\n"),
        *("2 shards", "3 shards"),
    ),
    "another index of as many images": Case(
        ("dataset=index", "dataset.root=DATA/idx", "dataset.roots=[DATA/in]"),
        put_index,
        replace_index,
        *("24 images", "24 images"),
    ),
}


def begun(case: Case, folder: Path) -> tuple[PretrainConfig, Path]:
    """A run that has a checkpoint, and as many steps to go as make it cheap: none."""
    case.put(folder / "data")
    tiny = [key for key in TINY if not key.startswith(("dataset", "hooks.knn_probe"))]
    own = [each.replace("DATA", str(folder / "data")) for each in case.arguments]
    crops = "transform.crops=[{count: 2, size: 4, scale: [0.3, 1.0], role: global}]"
    bare = ("backbone.stages=1", "hooks.knn_probe=null", "hooks.export=null", "max_steps=1")
    composed = compose_config("pretrain", [*tiny, *own, crops, *bare])
    data = composed.data | {"run": {"dir": str(folder / "run")}}
    config = build_config(PretrainConfig, data, composed.problems)
    trainer = built(config)
    write_description(trainer)
    return config, saved(trainer, 1)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_only_what_has_not_changed_is_continued_unasked(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, start = begun(case, tmp_path)
    pretrain(config, CPU)  # nothing has changed
    described = (tmp_path / "run" / "derived.yaml").read_bytes()
    case.change(tmp_path / "data")
    with pytest.raises(ConfigError) as refused:
        pretrain(config, CPU)
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"dataset: {config.dataset.name} holds {case.now} (fingerprint ")
    assert f"{start} was trained on {case.then} (fingerprint " in line
    assert f"resume={start} goes on" in line
    assert (tmp_path / "run" / "derived.yaml").read_bytes() == described
    assert "trained on" not in capsys.readouterr().out
    pretrain(replace(config, resume=str(start)), CPU)
    warning, *_, continued, _ = capsys.readouterr().out.splitlines()
    assert warning == line.split(". ")[0] + "; the run goes on with what it holds now"
    assert continued.startswith("continuing from step 1")


@pytest.mark.slow
def test_a_checkpoint_that_does_not_say_what_it_was_trained_on_is_continued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES["an added file"]
    config, start = begun(case, tmp_path)
    shared = torch.load(start / "shared.pt", weights_only=True)
    del shared["data"]
    torch.save(shared, start / "shared.pt")
    case.change(tmp_path / "data")
    pretrain(config, CPU)
    assert "trained on" not in capsys.readouterr().out


def _identity(roots: list[str]) -> DataIdentity:
    return identity_of(Folder(Folder.Config(root=roots[comm.rank()]), split="train"))


@pytest.mark.slow
def test_ranks_that_find_other_images_agree_on_those_of_the_first(tmp_path: Path) -> None:
    put_images(tmp_path / "a", "0.png")
    put_images(tmp_path / "b", "0.png", "1.png")
    for names in (["a", "b"], ["b", "a"]):
        first, second = run_ranks(_identity, 2, [str(tmp_path / name) for name in names])
        own = Folder(Folder.Config(root=str(tmp_path / names[0])), split="train")
        assert first == second == DataIdentity(f"{len(own)} images", own.fingerprint())
        assert DecodedCache(own, 1).extent() == first.extent
