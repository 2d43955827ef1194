"""Training on an index whose shards and files are no longer what was indexed."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests_support.command import TINY
from tests_support.in_process import built_from
from tests_support.shards import built, put_shard
from unlabeled.cli import index as index_command
from unlabeled.cli.main import main
from unlabeled.data.index.reader import Index
from unlabeled.data.sampling.block_shuffled import BlockShuffled
from unlabeled.errors import DataError

IMAGES, IN_SHARD = 61, 12
WHOLE, TRUNCATED, OLDER, VANISHED, CORRUPT = (f"{shard}.tar" for shard in range(5))


def image(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)  # all of equal length
    return buffer.getvalue()


def members(shard: str) -> list[tuple[str, bytes]]:
    first = IN_SHARD * int(shard[0])
    return [(f"{n:03}.png", image(n)) for n in range(first, first + IN_SHARD)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of five shards and a file, of which all but the first shard came to harm later."""
    folder = tmp_path_factory.mktemp("damaged")
    shards = folder / "in"
    for shard in (WHOLE, TRUNCATED, OLDER, VANISHED, CORRUPT):
        put_shard(shards / shard, members(shard))
    (shards / "060.png").write_bytes(image(60))
    built(folder / "idx", shards)
    (shards / "060.png").unlink()
    (shards / VANISHED).unlink()
    put_shard(
        shards / CORRUPT, [(n, b"x" * len(d) if n == "050.png" else d) for n, d in members(CORRUPT)]
    )
    swapped = members(OLDER)
    swapped[3], swapped[7] = swapped[7], swapped[3]
    put_shard(shards / OLDER, swapped)
    index = Index(folder / "idx")
    (tenth,) = (p for p in range(IMAGES) if index.entry(p).name == b"022.png")
    whole = (shards / TRUNCATED).read_bytes()
    (shards / TRUNCATED).write_bytes(whole[: index.entry(tenth).offset + 20])
    return folder


def expected(index: Index) -> dict[int, str]:
    """Which places are broken, and why."""
    found = {}
    for place in range(IMAGES):
        number = int(index.entry(place).name[:3])
        if number in (22, 23):
            found[place] = "the shard ends before it"
        elif number in (27, 31):
            found[place] = "the shard has been written anew since it was indexed"
        elif 36 <= number < 48 or number == 60:
            found[place] = "no such file or directory"
        elif number == 50:
            found[place] = "not an image in a known format"
    return found


def arguments(folder: Path, run: Path, *more: str) -> list[str]:
    tiny = [each for each in TINY if not each.startswith(("dataset", "epochs", "hooks.knn"))]
    return [
        *("pretrain", *tiny, "dataset=index", f"dataset.root={folder}/idx", f"run.dir={run}"),
        *("sampler=block_shuffled", "sampler.block_samples=8", "sampler.window_samples=24"),
        *("epochs=null", "samples=60", *more),
    ]


@pytest.mark.slow
def test_what_came_to_harm_is_named_and_replaced_and_all_else_keeps_its_place(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = built_from(arguments(folder, tmp_path, "loader.max_broken_share=0.4")[1:])
    taken = list[int]()
    trainer.method.register_forward_pre_hook(
        lambda method, given: taken.extend(given[0].indices.tolist())
    )
    with caplog.at_level(logging.WARNING):
        trainer.fit()
    index = Index(folder / "idx")
    broken = expected(index)
    config = BlockShuffled.Config(block_samples=8, window_samples=24)
    order = BlockShuffled(config, num_samples=IMAGES, seed=0).indices(0, 0, 60).tolist()
    for wanted, used in zip(order, taken, strict=True):
        assert used not in broken if wanted in broken else used == wanted
    for place in set(order) & broken.keys():
        name = index.entry(place).name.decode()
        assert sum(said.endswith(f"{name}: {broken[place]}") for said in caplog.messages) == 1
    for shard in (TRUNCATED, OLDER):
        assert f"{shard} has changed since it was indexed" in caplog.text


@pytest.mark.slow
def test_more_than_the_configured_share_of_it_stops_the_run(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(folder, tmp_path / "run", "loader.max_broken_share=0.2")) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "of 61 images could not be decoded, more than loader.max_broken_share=0.2" in line
    assert "in/" in line


def test_the_check_finds_all_of_it_beforehand(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_command, "SHOWN", IMAGES)
    assert main(["index", "check", f"{folder}/idx", "--deep", "--workers", "2"]) == 3
    lines = capsys.readouterr().out.splitlines()
    index = Index(folder / "idx")
    for place, reason in expected(index).items():
        name = index.entry(place).name.decode()
        assert sum(line.endswith(f"{name} {reason}") for line in lines) == 1
    assert sum(line.startswith("broken image") for line in lines) == len(expected(index))


def test_names_given_twice_are_counted_at_the_build_and_above_the_share_there_is_no_index(
    tmp_path: Path,
) -> None:
    twice = [*members(WHOLE), ("003.png", image(99))]
    put_shard(tmp_path / "in" / "a.tar", twice)
    with pytest.raises(DataError, match=r"duplicate member: .*a\.tar/003\.png"):
        built(tmp_path / "idx", tmp_path / "in", max_broken_share=0.05)
    done = built(tmp_path / "idx", tmp_path / "in", max_broken_share=0.1)
    assert done.header.entries == IN_SHARD and done.header.problems == {"duplicate member": 1}
