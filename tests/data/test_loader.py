"""What a batch holds is a pure function of the step, whoever makes it and whatever came before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests_support.loading import (
    CPU,
    SAMPLES,
    Kind,
    Painted,
    Slow,
    content,
    contents,
    loading,
    steps_of,
    stream,
    synthetic,
)
from unlabeled.data.loader import eval_batches, range_batches
from unlabeled.data.randomness import SampleKey
from unlabeled.data.sampling.shuffled import Shuffled
from unlabeled.data.sources.base import Source
from unlabeled.data.sources.folder import Folder
from unlabeled.data.types import Batch
from unlabeled.errors import ConfigError, DataError

PIPELINE = Painted()

# Everybody who may make batches, but for the test's own thread.
CREWS = [
    pytest.param(1, "threads", id="1 thread"),
    pytest.param(4, "threads", id="4 threads"),
    pytest.param(1, "processes", id="1 process", marks=pytest.mark.slow),
    pytest.param(4, "processes", id="4 processes", marks=pytest.mark.slow),
]
ALL = [pytest.param(0, "auto", id="alone"), *CREWS]


@pytest.fixture
def broken_folder(tmp_path: Path) -> Folder:
    """Thirty files, every third one of them unreadable, in three ways."""
    for number in range(30):
        path = tmp_path / f"{number % 2}" / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), (number, 255 - number, 7 * number)).save(path)
        if number % 9 == 0:
            path.write_bytes(b"")
        elif number % 9 == 3:
            path.write_bytes(path.read_bytes()[:50])
        elif number % 9 == 6:
            path.unlink()
            path.symlink_to("nowhere")
    return Folder(Folder.Config(root=str(tmp_path)), split="train")


def test_a_batch_holds_the_pipelines_views_of_the_samplers_images() -> None:
    source = synthetic()
    batch = steps_of(source)[(6, 0)]  # step 2 of epoch 1
    order = Shuffled(Shuffled.Config(), num_samples=SAMPLES, seed=5).indices(1, 24, 36)
    assert batch.indices.tolist() == order.tolist() and batch.indices.dtype == torch.int64
    assert source.labels is not None and batch.labels is not None
    assert batch.labels.tolist() == source.labels[order].tolist()
    assert [tuple(view.shape) for view in batch.views] == [
        (12, 3, 12, 12), (12, 3, 12, 12), (12, 3, 8, 8)
    ]  # fmt: skip
    assert all(view.dtype == torch.uint8 for view in batch.views) and batch.broken == ()
    assert [tuple(table.shape) for table in batch.deferred] == 3 * [(12, 2, 2)]
    for row, index in enumerate(order.tolist()):
        views = [np.zeros((3, size, size), dtype=np.uint8) for size in (12, 12, 8)]
        tables = [np.zeros((2, 2)) for _ in views]
        PIPELINE.write(source.image(index), SampleKey(5, 1, index), views, tables)
        for number in range(3):
            assert np.array_equal(batch.views[number][row].numpy(), views[number])
            assert np.array_equal(batch.deferred[number][row].numpy(), tables[number])


@pytest.mark.parametrize("prefetch", [1, 3])
@pytest.mark.parametrize(("workers", "kind"), ALL)
def test_who_makes_the_batches_changes_nothing(
    workers: int, kind: Kind, prefetch: int, broken_folder: Folder
) -> None:
    for source in (synthetic(), broken_folder):
        dataset = steps_of(source, batch_size=6, micro_steps=2)
        expected = [content(dataset[(step, micro)]) for step in range(3, 9) for micro in (0, 1)]
        assert contents(dataset, range(3, 9), workers, kind, prefetch) == expected


@pytest.mark.parametrize(("workers", "kind"), ALL)
def test_a_run_that_starts_at_any_step_sees_the_batches_of_one_that_never_stopped(
    workers: int, kind: Kind
) -> None:
    whole = contents(steps_of(synthetic()), range(0, 9))
    for start in range(9) if workers < 4 else (5,):
        again = contents(steps_of(synthetic()), range(start, 9), workers, kind)
        assert again == whole[start:]


def test_an_epoch_sees_every_sample_once_in_another_order_than_the_next() -> None:
    dataset = steps_of(synthetic(48))
    epochs = []
    for epoch in range(2):
        part = stream(dataset, range(4 * epoch, 4 * epoch + 4))
        epochs.append([index for batch in part for index in batch.indices.tolist()])
        assert sorted(epochs[-1]) == list(range(48))
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize(("micro_steps", "world_size"), [(1, 2), (2, 1), (2, 3), (3, 4)])
def test_micro_steps_and_ranks_partition_the_global_batch(
    micro_steps: int, world_size: int
) -> None:
    whole = steps_of(synthetic())[(5, 0)]
    parts = [
        steps_of(synthetic(), micro_steps=micro_steps, rank=rank, world_size=world_size)[(5, micro)]
        for micro in range(micro_steps)
        for rank in range(world_size)
    ]
    assert len({len(part) for part in parts}) == 1
    assert torch.equal(torch.cat([part.indices for part in parts]), whole.indices)
    for number, view in enumerate(whole.views):
        assert torch.equal(torch.cat([part.views[number] for part in parts]), view)


def test_a_pass_before_training_draws_its_own_views_of_the_same_images() -> None:
    training, before = (
        steps_of(synthetic())[(1, 0)],
        steps_of(synthetic(), augment_epoch=-1)[(1, 0)],
    )
    assert torch.equal(training.indices, before.indices)
    assert not torch.equal(training.views[0], before.views[0])
    index = int(before.indices[0])
    expected = PIPELINE(synthetic().image(index), SampleKey(5, -1, index))
    assert np.array_equal(before.views[0][0].numpy(), expected[0])


def test_epochs_draw_new_views_of_a_sample() -> None:
    dataset = steps_of(synthetic(12), steps_per_epoch=1)
    first, second = dataset[(0, 0)], dataset[(1, 0)]
    one, other = (b.views[0][b.indices.tolist().index(3)] for b in (first, second))
    assert not torch.equal(one, other)


def test_broken_images_are_replaced_and_reported(broken_folder: Folder) -> None:
    dataset = steps_of(broken_folder, batch_size=10, steps_per_epoch=3)
    reported: list[tuple[str, str]] = []
    for step in range(3):
        batch = dataset[(step, 0)]
        assert content(batch) == content(dataset[(step, 0)])
        assert broken_folder.labels is not None and batch.labels is not None
        assert batch.labels.tolist() == broken_folder.labels[batch.indices].tolist()
        for row, index in enumerate(batch.indices.tolist()):
            image = broken_folder.image(index)  # readable
            expected = PIPELINE(image, SampleKey(5, 0, index))
            assert np.array_equal(batch.views[0][row].numpy(), expected[0])
        reported += batch.broken
    names = {name for name, _ in reported}
    assert names == {f"{number % 2}/{number:02d}.png" for number in range(0, 30, 3)}
    reasons = dict(reported)
    assert reasons["0/00.png"] == "not an image in a known format"
    assert "truncated" in reasons["1/03.png"].lower()
    assert reasons["0/06.png"] == "no such file or directory"


def test_replacements_differ_between_epochs_and_seeds(broken_folder: Folder) -> None:
    def replacement(seed: int, step: int) -> list[int]:
        dataset = steps_of(broken_folder, batch_size=30, steps_per_epoch=1, seed=seed)
        wanted = dataset.wanted((step, 0))
        used = dataset[(step, 0)].indices.tolist()
        by_index = dict(zip(wanted.tolist(), used, strict=True))
        broken = [i for i, used in by_index.items() if used != i]
        assert len(broken) == 10
        return [by_index[index] for index in sorted(broken)]

    assert replacement(0, 0) == replacement(0, 0)
    assert replacement(0, 0) != replacement(0, 1)
    assert replacement(0, 0) != replacement(1, 0)


@pytest.mark.parametrize(("workers", "kind"), ALL)
def test_a_folder_of_broken_images_ends_with_a_plain_message(
    workers: int, kind: Kind, tmp_path: Path
) -> None:
    for number in range(12):
        (tmp_path / f"{number}.png").write_bytes(b"")
    source = Folder(Folder.Config(root=str(tmp_path)), split="train")
    dataset = steps_of(source, batch_size=4, steps_per_epoch=3)
    with pytest.raises(DataError) as caught:
        contents(dataset, range(3), workers, kind)
    message = str(caught.value)
    assert message.startswith("17 images in a row cannot be decoded, the last one ")
    assert "Traceback" not in message and "worker" not in message
    assert "not an image in a known format" in message


@pytest.mark.parametrize(("workers", "kind"), ALL)
def test_the_global_random_state_is_left_alone(workers: int, kind: Kind) -> None:
    torch.manual_seed(0)
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    contents(steps_of(synthetic()), range(2), workers, kind)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numbers).all()


@pytest.mark.parametrize("fields", [{"batch_size": 10, "world_size": 3}, {"batch_size": 0}])
def test_a_batch_that_does_not_divide_is_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"batch_size: {fields['batch_size']} does not divide"):
        steps_of(synthetic(), **fields)


@pytest.mark.parametrize("steps_per_epoch", [5, 0])
def test_an_epoch_that_does_not_fit_is_refused(steps_per_epoch: int) -> None:
    with pytest.raises(DataError, match=f"{steps_per_epoch} steps of batch_size=12 do not fit"):
        steps_of(synthetic(), steps_per_epoch=steps_per_epoch)


def evaluate(
    source: Source, workers: int = 0, kind: Kind = "auto", **fields: int
) -> Iterator[Batch]:
    settings = {"batch_size": 7, "rank": 0, "world_size": 1, **fields}
    chosen = loading(workers, kind)
    return eval_batches(source, PIPELINE, loader=chosen, device=CPU, **settings)


@pytest.mark.parametrize(("workers", "kind"), ALL)
@pytest.mark.parametrize("world_size", [1, 2, 3, 60])
def test_evaluation_reads_the_set_once_in_order(workers: int, kind: Kind, world_size: int) -> None:
    source = synthetic()
    if kind == "processes" and world_size == 60:
        world_size = 4
    indices, sizes = [], []
    for rank in range(world_size):
        lengths = []
        for batch in evaluate(source, workers, kind, rank=rank, world_size=world_size):
            lengths.append(len(batch))
            indices += batch.indices.tolist()
            for row, index in enumerate(batch.indices.tolist()):
                expected = PIPELINE(source.image(index), SampleKey(0, 0, index))
                for view, array in zip(batch.views, expected, strict=True):
                    assert np.array_equal(view[row].numpy(), array)
        assert all(length == 7 for length in lengths[:-1])
        sizes.append(sum(lengths))
    assert indices == list(range(SAMPLES))
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("workers", "kind"), ALL)
def test_ranges_are_read_one_after_the_other_and_share_no_batch(workers: int, kind: Kind) -> None:
    ranges = [range(30, 41), range(3, 3), range(0, 7), range(7, 8)]
    found = range_batches(
        synthetic(), PIPELINE, ranges, batch_size=5, loader=loading(workers, kind), device=CPU
    )
    assert [batch.indices.tolist() for batch in found] == [
        [30, 31, 32, 33, 34],
        [35, 36, 37, 38, 39],
        [40],
        [0, 1, 2, 3, 4],
        [5, 6],
        [7],
    ]
    assert not list(
        range_batches(synthetic(), PIPELINE, [], batch_size=5, loader=loading(), device=CPU)
    )


@pytest.mark.parametrize(("workers", "kind"), ALL)
def test_evaluation_reports_broken_images_and_shows_them_black(
    workers: int, kind: Kind, broken_folder: Folder
) -> None:
    black, reported, labels = [], [], []
    for batch in evaluate(broken_folder, workers, kind):
        for row, index in enumerate(batch.indices.tolist()):
            parts = [view[row].any() for view in (*batch.views, *batch.deferred)]
            assert all(parts) or not any(parts)
            black += [] if any(parts) else [index]
        reported += [name for name, _ in batch.broken]
        labels += [] if batch.labels is None else batch.labels.tolist()
    assert [broken_folder.name(index) for index in black] == reported and len(black) == 10
    assert broken_folder.labels is not None
    assert labels == broken_folder.labels.tolist()


class Late(Slow):
    """Every other image is broken, and those asked for first take longest to say so."""

    def __init__(self, folder: Folder) -> None:
        self._folder, self.labels = folder, folder.labels

    def __len__(self) -> int:
        return len(self._folder)

    def seconds(self, index: int) -> float:
        return 0.02 if index % 2 else 0.0

    def image(self, index: int) -> np.ndarray:
        super().image(index)
        return self._folder.image(index)

    def name(self, index: int) -> str:
        return self._folder.name(index)


@pytest.mark.parametrize(("workers", "kind"), CREWS)
def test_broken_images_are_named_in_the_order_of_the_rows(
    workers: int, kind: Kind, broken_folder: Folder
) -> None:
    dataset = steps_of(Late(broken_folder), batch_size=15, steps_per_epoch=2)
    found = contents(dataset, range(2), workers, kind)
    assert found == contents(steps_of(broken_folder, batch_size=15, steps_per_epoch=2), range(2))
