"""When things happen: errors when their batch is due, an end for all that was started."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests_support.loading import (
    CPU,
    Kind,
    Painted,
    Slow,
    content,
    contents,
    loading,
    steps_of,
    stream,
    synthetic,
    worker_processes,
)
from unlabeled.data.loader.stream import worker_count
from unlabeled.data.sources.base import Source
from unlabeled.errors import ConfigError, DataError

PROCESSES = pytest.param(2, "processes", id="processes", marks=pytest.mark.slow)
OTHERS = [pytest.param(2, "threads", id="threads"), PROCESSES]
ALL = [pytest.param(0, "auto", id="alone"), *OTHERS]


def helpers() -> list[object]:
    """Threads and processes of loaders that live."""
    threads = [t for t in threading.enumerate() if t.name.startswith("unlabeled-loader")]
    return [*threads, *worker_processes()]


class Failing(Slow):
    """Some images raise; those named first take longest to do so."""

    def __init__(self, errors: dict[int, Exception]) -> None:
        self._errors = errors

    def seconds(self, index: int) -> float:
        return 0.05 / (1 + list(self._errors).index(index)) if index in self._errors else 0

    def image(self, index: int) -> np.ndarray:
        pixels = super().image(index)
        if index in self._errors:
            raise self._errors[index]
        return pixels


@pytest.mark.parametrize(("workers", "kind"), ALL)
def test_an_error_is_raised_when_its_batch_is_due(workers: int, kind: Kind) -> None:
    order = steps_of(Slow()).wanted((2, 0)).tolist()
    source = Failing({order[3]: DataError("the first"), order[9]: ConfigError(["a", "b"])})
    expected = [content(steps_of(source)[(step, 0)]) for step in range(2)]
    for _ in range(3):
        lent = stream(steps_of(source), range(4), workers, kind)
        found = []
        with pytest.raises(DataError, match=r"^the first$"):
            for batch in lent:
                time.sleep(0.05)  # whoever works ahead has met the error by now
                found.append(content(batch))
        assert found == expected
        assert next(lent, None) is None
        assert not helpers()


@pytest.mark.parametrize(("workers", "kind"), ALL)
def test_every_kind_of_error_keeps_its_fields(workers: int, kind: Kind) -> None:
    index = int(steps_of(Slow()).wanted((0, 0))[0])
    with pytest.raises(ConfigError) as caught:
        contents(steps_of(Failing({index: ConfigError(["a", "b"])})), range(1), workers, kind)
    assert str(caught.value) == "a\nb"


@pytest.mark.parametrize(("workers", "kind"), ALL)
def test_a_crash_shows_where_it_was(workers: int, kind: Kind) -> None:
    index = int(steps_of(Slow()).wanted((0, 0))[0])
    with pytest.raises((ZeroDivisionError, RuntimeError)) as caught:
        contents(steps_of(Failing({index: ZeroDivisionError("odd")})), range(1), workers, kind)
    said = "".join(traceback.format_exception(caught.value))
    assert "ZeroDivisionError: odd" in said and "raise self._errors[index]" in said
    assert kind == "processes" or isinstance(caught.value, ZeroDivisionError)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "kind"), OTHERS)
def test_nothing_lives_longer_than_its_stream(workers: int, kind: Kind) -> None:
    dataset = steps_of(Slow())
    lent = stream(dataset, range(10**6), workers, kind)
    assert not helpers()  # nothing starts before it is needed
    next(lent)
    assert len(helpers()) == 2
    lent.close()
    assert not helpers()
    contents(dataset, range(2), workers, kind)
    assert not helpers()
    forgotten = stream(dataset, range(10**6), workers, kind)
    next(forgotten)
    del forgotten
    gc.collect()
    assert not helpers()


class Counted(Slow):
    """Images that are counted."""

    def __init__(self) -> None:
        self.asked = 0

    def image(self, index: int) -> np.ndarray:
        self.asked += 1
        return super().image(index)


def test_closing_waits_for_no_more_than_the_images_at_hand() -> None:
    source = Counted()
    lent = stream(steps_of(source), range(10**6), 2, "threads", prefetch=30)
    next(lent)
    before = source.asked
    lent.close()
    assert source.asked <= before + 2 < 31 * 12


@pytest.mark.parametrize(("workers", "kind"), OTHERS)
def test_a_reader_that_fails_leaves_nothing_behind(workers: int, kind: Kind) -> None:
    def read() -> None:
        for _ in stream(steps_of(Slow()), range(10**6), workers, kind):
            raise KeyError("of the training")

    with pytest.raises(KeyError):
        read()
    gc.collect()
    assert not helpers()


@pytest.mark.parametrize(("workers", "kind"), OTHERS)
def test_streams_may_be_read_in_turns(workers: int, kind: Kind) -> None:
    """As the pass that fills a bank, or an evaluation, does in the middle of training."""
    source = synthetic()
    one, other = steps_of(source), steps_of(source, augment_epoch=-1)
    expected = [contents(dataset, range(5)) for dataset in (one, other)]
    both = [stream(dataset, range(5), workers, kind) for dataset in (one, other)]
    found = [[content(next(lent)) for lent in both] for _ in range(5)]
    assert [list(each) for each in zip(*found, strict=True)] == expected


def test_auto_takes_threads_where_the_pipeline_releases_the_gil() -> None:
    lent = stream(steps_of(synthetic(), Painted(releases_gil=True)), range(9), 2, "auto")
    next(lent)
    assert len([h for h in helpers() if isinstance(h, threading.Thread)]) == 2


@pytest.mark.slow
def test_auto_takes_processes_where_it_does_not() -> None:
    lent = stream(steps_of(synthetic(), Painted(releases_gil=False)), range(9), 2, "auto")
    next(lent)
    assert len(worker_processes()) == 2


class Together(Source):
    """Images that can only be had several at a time."""

    def __init__(self, barrier: threading.Barrier) -> None:
        self._barrier = barrier

    def __len__(self) -> int:
        return 1000

    def image(self, index: int) -> np.ndarray:
        self._barrier.wait(timeout=20)
        return np.zeros((16, 16, 3), dtype=np.uint8)

    def name(self, index: int) -> str:
        return str(index)


@pytest.mark.parametrize(("workers", "kind"), OTHERS)
def test_rows_are_made_at_the_same_time(workers: int, kind: Kind) -> None:
    barrier = threading.Barrier(2) if kind == "threads" else multiprocessing.Barrier(2)
    assert len(contents(steps_of(Together(barrier)), range(2), workers, kind)) == 2


def test_null_workers_are_torchs_threads_or_half_of_them_where_it_trains_on_these() -> None:
    null, before = replace(loading(), workers=None), torch.get_num_threads()
    try:
        for threads, on_cpu, on_gpu in ((1, 1, 1), (2, 1, 2), (3, 1, 3), (16, 8, 16)):
            torch.set_num_threads(threads)
            assert worker_count(null, CPU) == on_cpu
            assert worker_count(null, torch.device("cuda")) == on_gpu
    finally:
        torch.set_num_threads(before)
    assert worker_count(loading(5), CPU) == 5 and worker_count(loading(0), CPU) == 0


READER = """
import atexit, os, signal, sys
sys.path[:0] = {path!r}
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
atexit.register(lambda: print(helpers()))  # hooks that are registered first run last
from unlabeled import process
with process.importing():
    from test_stream import helpers
    from tests_support.loading import Slow, steps_of, stream
for then in {programs!r}:
    if os.fork() == 0:
        break
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
else:
    os._exit(0)
lent = stream(steps_of(Slow()), range(10**6), 2, {kind!r})
next(lent)
print("reading", flush=True)
exec(then)
"""


def readers(kind: str, *programs: str) -> subprocess.Popen[str]:
    """Forks that have read one batch, and then do something; one after the other."""
    path = [str(Path(__file__).parent), *sys.path]
    code = READER.format(path=path, kind=kind, programs=programs)
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_a_program_may_end_in_the_middle_of_a_stream(kind: str) -> None:
    programs = ("", "raise SystemExit(0)", "held = [lent]; del lent")
    said = readers(kind, *programs).communicate(timeout=60)
    assert said == ("reading\n[]\n0\n" * 3, "")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_an_interrupt_ends_a_reader_that_waits(kind: str) -> None:
    interrupted = "os.write(1, b'%d\\n' % os.getpid())\nfor _ in lent: pass"
    process = readers(kind, interrupted)
    assert process.stdout is not None and process.stdout.readline() == "reading\n"
    pid = int(process.stdout.readline())
    time.sleep(0.2)
    os.kill(pid, signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert output.splitlines()[-1] == str(-signal.SIGINT)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert errors.count("Traceback") == 1
