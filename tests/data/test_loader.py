from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unlabeled.config.check import build_config
from unlabeled.data.loader import StepBatches, batches, eval_batches
from unlabeled.data.sampling.shuffled import Shuffled
from unlabeled.data.sources.base import Source
from unlabeled.data.sources.folder import Folder
from unlabeled.data.sources.synthetic import Synthetic
from unlabeled.data.transforms.base import SampleKey
from unlabeled.data.transforms.center_crop import CenterCrop
from unlabeled.data.transforms.multi_crop import MultiCrop
from unlabeled.data.types import Batch
from unlabeled.errors import ConfigError, DataError

PIPELINE = MultiCrop(
    build_config(
        MultiCrop.Config,
        {
            "crops": [
                {"count": 2, "size": 12, "scale": [0.2, 1.0], "role": "global"},
                {"count": 1, "size": 8, "scale": [0.05, 0.2], "role": "local"},
            ],
            "operations": [{"name": "horizontal_flip", "p": 0.5}, {"name": "color_jitter"}],
        },
    )
)
MIDDLE = CenterCrop(CenterCrop.Config(size=8, resize=None))
SAMPLES = 50


def synthetic(num_samples: int = SAMPLES) -> Synthetic:
    return Synthetic(Synthetic.Config(num_samples=num_samples, image_size=16), split="train")


def steps_of(source: Source, **fields: Any) -> StepBatches:
    settings = {
        **{"seed": 5, "batch_size": 12, "micro_steps": 1, "rank": 0, "world_size": 1},
        **{"steps_per_epoch": 4},
        **fields,
    }
    sampler = Shuffled(Shuffled.Config(), num_samples=len(source), seed=settings["seed"])
    return StepBatches(source, PIPELINE, sampler, **settings)


def content(batch: Batch) -> tuple[object, ...]:
    labels = None if batch.labels is None else batch.labels.tolist()
    views = tuple(view.numpy().tobytes() for view in batch.views)
    return views, tuple(batch.indices.tolist()), labels, batch.broken


def read(dataset: StepBatches, steps: range, workers: int = 0) -> list[Batch]:
    return list(batches(dataset, steps, workers=workers, prefetch=2, pin_memory=False))


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


class Slow(Source):
    """Images that take a while."""

    def __len__(self) -> int:
        return 1000

    def image(self, index: int) -> np.ndarray:
        time.sleep(0.01)
        return np.zeros((16, 16, 3), dtype=np.uint8)

    def name(self, index: int) -> str:
        return str(index)


def test_a_batch_holds_the_pipelines_views_of_the_samplers_images() -> None:
    source = synthetic()
    dataset = steps_of(source)
    batch = dataset[(6, 0)]  # step 2 of epoch 1
    order = Shuffled(Shuffled.Config(), num_samples=SAMPLES, seed=5).indices(1, 24, 36)
    assert batch.indices.tolist() == order.tolist() and batch.indices.dtype == torch.int64
    assert source.labels is not None and batch.labels is not None
    assert batch.labels.tolist() == source.labels[order].tolist()
    assert [tuple(view.shape) for view in batch.views] == [
        (12, 3, 12, 12), (12, 3, 12, 12), (12, 3, 8, 8)
    ]  # fmt: skip
    assert all(view.dtype == torch.uint8 for view in batch.views) and batch.broken == ()
    for row, index in enumerate(order.tolist()):
        expected = PIPELINE(source.image(index), SampleKey(5, 1, index))
        for view, array in zip(batch.views, expected, strict=True):
            assert np.array_equal(view[row].numpy(), array)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers: int, broken_folder: Folder) -> None:
    for source in (synthetic(), broken_folder):
        dataset = steps_of(source, batch_size=6, micro_steps=2)
        alone = [content(batch) for batch in read(dataset, range(3, 9))]
        assert [content(batch) for batch in read(dataset, range(3, 9), workers)] == alone
        assert len(alone) == 12


def test_a_run_that_starts_at_any_step_sees_the_batches_of_one_that_never_stopped() -> None:
    whole = [content(batch) for batch in read(steps_of(synthetic()), range(0, 9))]
    for start in range(9):
        assert [content(b) for b in read(steps_of(synthetic()), range(start, 9))] == whole[start:]


def test_an_epoch_sees_every_sample_once_in_another_order_than_the_next() -> None:
    dataset = steps_of(synthetic(48))
    epochs = []
    for epoch in range(2):
        part = read(dataset, range(4 * epoch, 4 * epoch + 4))
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
    reported = []
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
        _, wanted = dataset.indices(step, 0)
        used = dataset[(step, 0)].indices.tolist()
        by_index = dict(zip(wanted.tolist(), used, strict=True))
        broken = [i for i, used in by_index.items() if used != i]
        assert len(broken) == 10
        return [by_index[index] for index in sorted(broken)]

    assert replacement(0, 0) == replacement(0, 0)
    assert replacement(0, 0) != replacement(0, 1)
    assert replacement(0, 0) != replacement(1, 0)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_folder_of_broken_images_ends_with_a_plain_message(tmp_path: Path, workers: int) -> None:
    for number in range(12):
        (tmp_path / f"{number}.png").write_bytes(b"")
    source = Folder(Folder.Config(root=str(tmp_path)), split="train")
    dataset = steps_of(source, batch_size=4, steps_per_epoch=3)
    with pytest.raises(DataError) as caught:
        read(dataset, range(3), workers)
    message = str(caught.value)
    assert message.startswith("17 images in a row cannot be decoded, the last one ")
    assert "Traceback" not in message and "worker" not in message
    assert "not an image in a known format" in message


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_random_state_is_left_alone(workers: int) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    read(steps_of(synthetic()), range(2), workers)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("fields", [{"batch_size": 10, "world_size": 3}, {"batch_size": 0}])
def test_a_batch_that_does_not_divide_is_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"batch_size: {fields['batch_size']} does not divide"):
        steps_of(synthetic(), **fields)


@pytest.mark.parametrize("steps_per_epoch", [5, 0])
def test_an_epoch_that_does_not_fit_is_refused(steps_per_epoch: int) -> None:
    with pytest.raises(DataError, match=f"{steps_per_epoch} steps of batch_size=12 do not fit"):
        steps_of(synthetic(), steps_per_epoch=steps_per_epoch)


def started(stream: Iterator[Batch]) -> tuple[Batch, list[multiprocessing.Process]]:
    """The first batch of a stream, and the processes that reading it started."""
    before = set(multiprocessing.active_children())
    first = next(stream)
    return first, [child for child in multiprocessing.active_children() if child not in before]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_workers_leave_signals_to_the_parent(number: signal.Signals) -> None:
    stream = batches(steps_of(Slow()), range(8), workers=2, prefetch=1, pin_memory=False)
    first, workers = started(stream)
    assert len(workers) == 2
    # From a process that is not the parent, as a terminal or a scheduler would.
    subprocess.run(["kill", f"-{number}", *(str(worker.pid) for worker in workers)], check=True)
    seen = [batch.indices.tolist() for batch in (first, *stream)]
    assert seen == [batch.indices.tolist() for batch in read(steps_of(Slow()), range(8))]


def test_workers_end_when_the_parent_says_so() -> None:
    _, workers = started(
        stream := batches(steps_of(Slow()), range(40), workers=2, prefetch=1, pin_memory=False)
    )
    workers[0].terminate()
    workers[0].join(timeout=5)
    assert workers[0].exitcode == 0
    started_at = time.monotonic()
    del stream
    assert [worker.is_alive() for worker in workers] == [False, False]
    assert time.monotonic() - started_at < 4


ORPHANS = """
import multiprocessing, sys, time
sys.path[:0] = {path!r}
from test_loader import Slow, batches, steps_of
stream = batches(steps_of(Slow()), range(10**6), workers=2, prefetch=2, pin_memory=False)
next(stream)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
for _ in stream: pass
"""


@pytest.mark.slow
def test_workers_die_with_a_killed_parent() -> None:
    code = ORPHANS.format(path=[str(Path(__file__).parent), *sys.path])
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(word) for word in parent.stdout.readline().split()]
    assert len(workers) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while any(map(running, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(running, workers))


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def evaluate(source: Source, **fields: int) -> Iterator[Batch]:
    settings = {"batch_size": 7, "rank": 0, "world_size": 1, "workers": 0, **fields}
    return eval_batches(source, MIDDLE, **settings)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3, 60])
def test_evaluation_reads_the_set_once_in_order(workers: int, world_size: int) -> None:
    source = synthetic()
    if workers and world_size == 60:
        world_size = 4
    shares = [
        list(evaluate(source, rank=rank, world_size=world_size, workers=workers))
        for rank in range(world_size)
    ]
    indices = [batch.indices.tolist() for share in shares for batch in share]
    assert [index for part in indices for index in part] == list(range(SAMPLES))
    assert all(len(batch) == 7 for share in shares for batch in share[:-1])
    sizes = [sum(map(len, share)) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    for share in shares:
        for batch in share:
            for row, index in enumerate(batch.indices.tolist()):
                expected = MIDDLE(source.image(index), SampleKey(0, 0, index))[0]
                assert np.array_equal(batch.views[0][row].numpy(), expected)


def test_evaluation_reports_broken_images_and_shows_them_black(broken_folder: Folder) -> None:
    found = list(evaluate(broken_folder))
    assert [i for batch in found for i in batch.indices.tolist()] == list(range(30))
    views = torch.cat([batch.views[0] for batch in found])
    black = [i for i, view in enumerate(views) if not view.any()]
    reported = [name for batch in found for name, _ in batch.broken]
    assert [broken_folder.name(index) for index in black] == reported and len(black) == 10
    assert broken_folder.labels is not None
    labels = [
        label for batch in found if batch.labels is not None for label in batch.labels.tolist()
    ]
    assert labels == broken_folder.labels.tolist()
