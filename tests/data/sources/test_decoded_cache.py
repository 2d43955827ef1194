from __future__ import annotations

import logging
import pickle
import sys
import threading
import time

import numpy as np
import pytest
import torch

from unlabeled.data.decode import BrokenImage
from unlabeled.data.sources.base import Source
from unlabeled.data.sources.decoded_cache import DecodedCache

PLENTY_GB = 1.0
BROKEN = {3: "image file is truncated", 11: "permission denied"}


class Drawn(Source):
    """Images of different sizes from their number alone; counts who asked for what."""

    def __init__(self, count: int = 20) -> None:
        self.labels = np.arange(count, dtype=np.int64) % 4
        self.classes = ("a", "b", "c", "d")
        self.asked: list[int] = []

    def __len__(self) -> int:
        assert self.labels is not None
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        self.asked.append(index)
        if index in BROKEN:
            raise BrokenImage(BROKEN[index])
        generator = np.random.default_rng(index)
        return generator.integers(0, 256, (20 + index, 30, 3), dtype=np.uint8)

    def name(self, index: int) -> str:
        return f"drawn/{index}"

    @property
    def num_classes(self) -> int:
        return 9

    def fingerprint(self) -> str:
        return "0123456789abcdef"


def whole(source: Source, order: list[int]) -> list[np.ndarray]:
    return [source.image(index) for index in order if index not in BROKEN]


def test_images_are_those_of_the_source_and_decoded_once() -> None:
    source = Drawn()
    cache = DecodedCache(source, PLENTY_GB)
    order = [*range(20), *reversed(range(20)), 5, 5]
    for got, wanted in zip(whole(cache, order), whole(Drawn(), order), strict=True):
        assert got.dtype == np.uint8 and np.array_equal(got, wanted)
    assert sorted(source.asked) == [index for index in range(20) if index not in BROKEN]


def test_everything_else_is_the_sources_own() -> None:
    source = Drawn()
    cache = DecodedCache(source, PLENTY_GB)
    assert cache.labels is source.labels and cache.classes == source.classes
    assert (len(cache), cache.num_classes) == (20, 9)
    assert (cache.name(7), cache.fingerprint()) == ("drawn/7", "0123456789abcdef")
    source.labels, source.decode_at_least = None, 300
    assert DecodedCache(source, PLENTY_GB).labels is None
    assert DecodedCache(source, PLENTY_GB).decode_at_least == 300


def test_of_a_broken_image_the_reason_is_kept() -> None:
    source = Drawn()
    cache = DecodedCache(source, PLENTY_GB)
    for _ in range(3):
        for index, reason in BROKEN.items():
            with pytest.raises(BrokenImage, match=f"^{reason}$"):
                cache.image(index)
    assert source.asked == list(BROKEN)


def test_nobody_can_change_what_is_kept() -> None:
    source = Drawn()
    big = np.zeros((50, 40, 3), dtype=np.uint8)
    source.image = lambda index: big[:4, :5]  # type: ignore[method-assign]
    cache = DecodedCache(source, PLENTY_GB)
    first = cache.image(0)
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0, 0] = 1
    big[:] = 9  # the source's own array is not the cache's
    assert not cache.image(0).any()
    assert first.base is None


def test_filling_stops_at_the_limit_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    sizes = [sys.getsizeof(image.copy()) for image in whole(Drawn(), [0, 1, 2])]
    source = Drawn()
    cache = DecodedCache(source, sum(sizes) / 1e9)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            whole(cache, list(range(20)))
    assert [source.asked.count(index) for index in (0, 1, 2)] == [1, 1, 1]
    assert [source.asked.count(index) for index in (4, 5, 19)] == [3, 3, 3]
    (line,) = caplog.messages
    assert "3 of 20 kept" in line

    caplog.clear()
    tight = DecodedCache(Drawn(), (sum(sizes) - 1) / 1e9)
    whole(tight, [0, 1, 2, 1, 2])
    assert "2 of 20 kept" in caplog.messages[0] and len(caplog.messages) == 1


def test_a_limit_below_the_first_image_keeps_none(caplog: pytest.LogCaptureFixture) -> None:
    source = Drawn()
    cache = DecodedCache(source, 1e-9)
    assert np.array_equal(cache.image(0), Drawn().image(0))
    cache.image(0)
    assert source.asked == [0, 0]
    assert "0 of 20 kept in 0 GB" in caplog.messages[0]


class Hesitant(float):
    """A limit that lets every other thread go first while one compares with it."""

    def __mul__(self, other: float) -> float:
        time.sleep(1e-4)
        return float(self) * other


def test_threads_share_a_cache(caplog: pytest.LogCaptureFixture) -> None:
    source = Drawn(200)
    one = sys.getsizeof(Drawn().image(0).copy())
    # Room for most: threads also race for the last place.
    cache = DecodedCache(source, Hesitant(500 * one / 1e9))
    wanted = {index: Drawn(200).image(index) for index in range(200) if index not in BROKEN}
    start, wrong = threading.Barrier(8), []

    def read(seed: int) -> None:
        start.wait()
        for index in np.random.default_rng(seed).permutation(200).tolist():
            try:
                same = np.array_equal(cache.image(index), wanted[index])
            except BrokenImage as error:
                same = str(error) == BROKEN[index]
            if not same:
                wrong.append(index)

    # Two by two in the same order, so that they meet at the same image.
    threads = [threading.Thread(target=read, args=(number // 2,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    kept = sum(sys.getsizeof(image) for image in cache._images.values())
    assert cache._bytes == kept <= 500 * one
    assert set(cache._broken) == set(BROKEN)
    assert len(caplog.messages) == 1


def test_another_process_gets_the_source_and_an_empty_cache() -> None:
    cache = DecodedCache(Drawn(), PLENTY_GB)
    whole(cache, list(range(20)))
    packed = pickle.dumps(cache)
    assert len(packed) < 1000 < sum(image.nbytes for image in whole(cache, [0, 1]))
    again = pickle.loads(packed)
    assert np.array_equal(again.image(19), cache.image(19))
    assert len(again) == 20 and again._limit_gb == PLENTY_GB


@pytest.mark.slow
def test_worker_processes_go_on_from_what_was_cached() -> None:
    source = Drawn()
    cache = DecodedCache(source, PLENTY_GB)
    cache.image(0)

    class Asked(torch.utils.data.Dataset[int]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, item: int) -> int:
            cache.image(item % 2)
            return len(source.asked)

    loader = torch.utils.data.DataLoader(
        Asked(), num_workers=1, batch_size=None, multiprocessing_context="fork"
    )
    # The worker finds image 0 and decodes image 1 once; this process sees none of that.
    assert [int(count) for count in loader] == [1, 2, 2, 2]
    assert source.asked == [0]
