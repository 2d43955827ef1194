"""A stream of shards against the list of its images that a naive reader makes."""

from __future__ import annotations

import os
import pickle
import shutil
import tarfile
import threading
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from tests_support.loading import contents, synthetic
from tests_support.probes import Whole
from tests_support.shards import png, put_shard
from tests_support.web import serving
from unlabeled.data.decode import BrokenImage
from unlabeled.data.loader import StepBatches
from unlabeled.data.sampling.permutation import Permutation
from unlabeled.data.sampling.windowed import Windowed
from unlabeled.data.sources import shards as shards_module
from unlabeled.data.sources.decoded_cache import DecodedCache
from unlabeled.data.sources.shards import Shards
from unlabeled.errors import DataError

SIZES = (3, 1, 5, 0, 4)
IMAGES = sum(SIZES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five shards of different sizes, one of them empty; image n of all is red n."""
    number = 0
    for shard, size in enumerate(SIZES):
        members = []
        for _ in range(size):
            members += [(f"{number:03d}.png", png(number)), (f"{number:03d}.cls", b"7")]
            number += 1
        put_shard(tmp_path / "in" / f"{shard}.tar", members)
    return tmp_path / "in"


def opened(root: Path, samples: int | None = None, **fields: object) -> Shards:
    source = Shards(Shards.Config(root=str(root), **fields), split="train")  # type: ignore[arg-type]
    source.stated_samples = samples
    return source


def red(source: Shards, index: int) -> int:
    return int(source.image(index)[0, 0, 0])


def by_hand(folder: Path, passes: int, seed: int = 0) -> list[str]:
    """The names of the stream's images, read shard by shard with `tarfile`."""
    paths, found = sorted(folder.glob("*.tar")), []
    for number in range(passes):
        for shard in Permutation(len(paths), seed, number)(np.arange(len(paths))).tolist():
            with tarfile.open(paths[shard]) as archive:
                found += [f"{paths[shard]}/{n}" for n in archive.getnames() if n.endswith(".png")]
    return found


@pytest.mark.parametrize("seed", [0, 1])
def test_the_stream_is_the_shards_in_keyed_order_pass_after_pass(folder: Path, seed: int) -> None:
    expected = by_hand(folder, passes=4, seed=seed)
    source = opened(folder, seed=seed)
    assert [source.name(index) for index in range(4 * IMAGES)] == expected
    assert [red(source, index) for index in range(IMAGES)] == [int(n[-7:-4]) for n in expected][
        :IMAGES
    ]
    for number in range(4):  # every image once a pass
        part = expected[number * IMAGES : (number + 1) * IMAGES]
        assert len(set(part)) == IMAGES
    assert expected[:IMAGES] != expected[IMAGES : 2 * IMAGES]


def test_any_image_is_found_without_those_before_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where fewer places are held than are read in turn."""
    expected = by_hand(folder, passes=3)
    for held, index in product((1, 6, 1000), (38, 0, 13, 12, 25)):
        monkeypatch.setattr(shards_module, "HELD_IMAGES", held)
        source = opened(folder)
        for place in (index, 0, 7, index):
            assert source.name(place) == expected[place]
            images = [len(table) for table in source._tables.values()]
            assert sum(images) <= held or len(images) == 1


def test_threads_and_processes_find_the_same(folder: Path) -> None:
    expected, source = by_hand(folder, passes=6), opened(folder)
    wrong = list[int]()

    def work(start: int) -> None:
        for turn in range(300):
            index = (start * 17 + turn * 29) % len(expected)
            if source.name(index) != expected[index]:
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and source._ends == sorted(source._ends)
    source.stated_samples, source.decode_at_least = 5, 3
    again = pickle.loads(pickle.dumps(source))
    assert (len(again), again.decode_at_least, again.name(4)) == (5, 3, expected[4])
    assert again.fingerprint() == source.fingerprint()


def test_the_fingerprint_is_of_names_their_order_and_sizes_wherever_the_shards_lie(
    folder: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere" / "still"
    shutil.copytree(folder, elsewhere, copy_function=shutil.copyfile)  # with times of their own
    first = opened(folder).fingerprint()
    assert opened(elsewhere).fingerprint() == first
    orders = [("a/0.tar", "b/0.tar"), ("b/0.tar", "a/0.tar")]
    for names in orders:
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            shutil.copy(folder / "0.tar", tmp_path / name)
    found = {first} | {opened(lists("\n".join(o))(tmp_path)).fingerprint() for o in orders}
    put_shard(elsewhere / "2.tar", [(f"{n}.png", png(n)) for n in range(40)])
    found.add(opened(elsewhere).fingerprint())
    (elsewhere / "4.tar").rename(elsewhere / "5.tar")
    found.add(opened(elsewhere).fingerprint())
    (elsewhere / "5.tar").unlink()
    found.add(opened(elsewhere).fingerprint())
    assert len(found) == 6
    (tmp_path / "gone.txt").write_text("in/0.tar\nin/7.tar\nhttps://nowhere.invalid/1.tar\n")
    gone = opened(tmp_path / "gone.txt").fingerprint()
    (folder / "7.tar").write_bytes(b"")
    assert opened(tmp_path / "gone.txt").fingerprint() != gone


def steps(source: Shards, rank: int, world: int, micro: int = 1) -> StepBatches:
    """Two passes in batches of 2 for each of six shares."""
    sampler = Windowed(Windowed.Config(window_samples=5), num_samples=len(source), seed=3)
    return StepBatches(
        *(source, Whole(), sampler),
        seed=3,
        batch_size=12,
        micro_steps=micro,
        rank=rank,
        world_size=world,
        steps_per_epoch=len(source) // 12,
    )


@pytest.mark.parametrize(("ranks", "micro_steps"), [(1, 1), (2, 1), (3, 2), (6, 1)])
def test_ranks_together_see_every_image_once_a_pass_whatever_their_number(
    folder: Path, ranks: int, micro_steps: int
) -> None:
    """In 12 passes of 13 images; also when another number of ranks goes on in the middle."""
    samples = 12 * IMAGES

    def seen(world: int, micro: int, numbers: range) -> list[str]:
        parts = [steps(opened(folder, samples), rank, world, micro) for rank in range(world)]
        items = product(numbers, range(micro), parts)
        wanted = [(part, i) for step, m, part in items for i in part.wanted((step, m)).tolist()]
        return [part.source.name(index) for part, index in wanted]

    whole = seen(ranks, micro_steps, range(13))
    assert seen(1, 1, range(5)) + seen(ranks, micro_steps, range(5, 13)) == whole
    stream = by_hand(folder, passes=12)
    assert sorted(whole) == sorted(stream) and whole != stream
    for first in range(0, samples, 5):  # and no window is left before it is read
        assert sorted(whole[first : first + 5]) == sorted(stream[first : first + 5])


@pytest.mark.slow
def test_the_loader_gives_the_same_batches_with_any_crew(folder: Path) -> None:
    alone = contents(steps(opened(folder, 24), 0, 1), range(2))
    assert contents(steps(opened(folder, 24), 0, 1), range(2), 2, "threads") == alone
    assert contents(steps(opened(folder, 24), 0, 1), range(2), 2, "processes") == alone


def test_what_cannot_be_used_has_its_place_and_a_neighbour_stands_in(tmp_path: Path) -> None:
    """A shard that was cut, one that vanished, a member that is no image, a name given twice."""
    put_shard(tmp_path / "a.tar", [(f"{n}.png", png(n)) for n in range(4)])
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: 3 * 1024 + 530])
    put_shard(tmp_path / "c.tar", [("8.png", b"no image"), ("9.png", png(9)), ("9.png", png(8))])
    (tmp_path / "list.txt").write_text("a.tar\ngone.tar\nc.tar\n")
    source = opened(tmp_path / "list.txt", 12)
    found: dict[str, str] = {}
    for index in range(8):
        try:
            assert red(source, index) == int(Path(source.name(index)).stem)
        except BrokenImage as error:
            found[source.name(index).removeprefix(f"{tmp_path}/")] = str(error)
    assert found.pop("a.tar").startswith("ends at byte 3602, in the middle of the member")
    assert found == {
        "gone.tar": "no such file or directory",
        "c.tar/8.png": "not an image in a known format",
        "c.tar/9.png": "the shard has this name already",
    }
    batch = steps(source, 0, 1)[(0, 0)]
    assert set(found) < {name.removeprefix(f"{tmp_path}/") for name, _ in batch.broken}
    assert len(batch.indices) == 12
    for index in batch.indices.tolist():
        source.image(index)


@pytest.mark.parametrize("index", [0, 3, 600, 10**9])
def test_a_replacement_is_near_also_at_the_beginning(folder: Path, index: int) -> None:
    source = opened(folder)
    drawn = {source.replacement(index, draw) for draw in range(5000)}
    assert min(drawn) == max(0, index - 512) and len(drawn) == 1024
    assert DecodedCache(opened(folder, 5), 1).replacement(index, 5) == min(drawn) + 5
    assert synthetic(12).replacement(7, 31) == 31 % 12


def test_a_shard_that_changes_while_it_is_read_gives_errors_and_no_other_images(
    folder: Path,
) -> None:
    source = opened(folder)
    place = [source.name(index) for index in range(IMAGES)].index(f"{folder}/2.tar/005.png")
    put_shard(folder / "2.tar", [(f"{n:03d}.png", png(n)) for n in reversed(range(4, 9))])
    with pytest.raises(BrokenImage, match="written anew"):
        source.image(place)


def test_shards_on_a_server_are_copied_and_one_that_may_come_back_stops_the_run(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving() as server:
        for shard in folder.glob("*.tar"):
            server.files[shard.name] = shard.read_bytes()
        lines = [f"{server.address}/{n}.tar" for n in (0, 2, 7)]
        (tmp_path / "list.txt").write_text("\n".join(lines))
        source = opened(tmp_path / "list.txt", cache=str(tmp_path / "cache"), attempts=1)
        reds = set()
        for index in range(9):  # the ninth is the one that is not there
            try:
                reds.add(red(source, index))
            except BrokenImage as error:
                assert "404" in str(error) and source.name(index) == lines[2]
        assert reds == {0, 1, 2, 4, 5, 6, 7, 8} and server.asked.count("0.tar") == 1
        assert "has changed" not in caplog.text  # the time of a copy says nothing of its shard
    (tmp_path / "later.txt").write_text(f"{server.address}/4.tar")
    later = opened(tmp_path / "later.txt", cache=str(tmp_path / "cache"), attempts=1)
    with pytest.raises(DataError, match=r"4\.tar .* the same command continues"):
        later.image(0)


def empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def lists(text: str) -> Callable[[Path], Path]:
    def written(folder: Path) -> Path:
        (folder / "list.txt").write_text(text)
        return folder / "list.txt"

    return written


@pytest.mark.parametrize(
    ("root", "message"),
    [
        (empty, "holds no shards"),
        (lists("a.tar\nb.tar\na.tar\n"), r"names .*/a\.tar 2 times"),
        (lists("\n"), "holds no shards"),
        (lambda folder: folder / "0.tar", "is one shard; give its folder"),
        (lambda folder: folder / "nowhere", "cannot read .*nowhere"),
    ],
)
def test_lists_that_are_none(folder: Path, root: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(root(folder))


def test_a_root_may_be_relative(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    (folder / "list.txt").write_text("0.tar\n")
    for root in ("in", "in/list.txt"):
        source = opened(Path(root))
        monkeypatch.chdir("/")  # what is open stays what it is
        assert red(source, 0) == int(source.name(0)[-7:-4])
        monkeypatch.chdir(folder.parent)


def test_shards_without_any_image_end_in_an_error_and_not_in_a_loop(tmp_path: Path) -> None:
    for name in ("a", "b"):
        put_shard(tmp_path / f"{name}.tar", [("1.txt", b"text")])
    with pytest.raises(DataError, match="no images are in the 2 shards"):
        opened(tmp_path).image(0)


def test_nobody_knows_the_length_and_there_is_no_test_split(folder: Path) -> None:
    with pytest.raises(DataError, match=r"nobody counted .*`unlabeled index build`"):
        len(opened(folder))
    assert len(opened(folder, 100)) == 100 and not Shards.counted
    with pytest.raises(DataError, match="no test split"):
        Shards(Shards.Config(root=str(folder)), split="test")
    source = opened(folder)
    source.image(0)
    with pytest.raises(IndexError):
        source.image(-1)
    config = Shards.Config(root="x", cache_gb=0, stall_seconds=-1, attempts=0)
    assert set(dict(config.problems())) == {"cache_gb", "stall_seconds", "attempts"}


def test_a_shard_that_may_not_be_read_is_broken(folder: Path) -> None:
    (folder / "3.tar").unlink()
    (folder / "3.tar").mkdir()
    source = opened(folder)
    named = [source.name(index) for index in range(IMAGES + 1)]
    assert os.fspath(folder / "3.tar") in named
