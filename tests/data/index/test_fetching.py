from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable

import pytest

from unlabeled.data.index import fetching
from unlabeled.data.index.fetching import Final, Stream, fetch


class Breaking(io.BytesIO):
    """Gives its content and then, instead of the end, an error; or hangs."""

    def __init__(self, data: bytes, after: BaseException | threading.Event) -> None:
        super().__init__(data)
        self.after = after

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if data:
            return data
        if isinstance(self.after, threading.Event):
            self.after.wait()
            return b""
        raise self.after


def run(
    streams: list[Callable[[], Stream]], attempts: int = 5, stall: float = 5.0
) -> tuple[bytes, list[float]]:
    """What was written at last, and how long was waited before each new attempt."""
    written, waited = bytearray(), list[float]()
    left = iter(streams)

    def write(chunk_of: Callable[[], bytes]) -> None:
        written.clear()
        while chunk := chunk_of():
            written.extend(chunk)

    fetch(
        lambda: next(left)(),
        write,
        name="x",
        attempts=attempts,
        stall_seconds=stall,
        sleep=waited.append,
    )
    return bytes(written), waited


def whole() -> Stream:
    return io.BytesIO(b"whole")


def broken(error: BaseException) -> Callable[[], Stream]:
    return lambda: Breaking(b"who", error)


def failing(error: BaseException) -> Callable[[], Stream]:
    def open_stream() -> Stream:
        raise error

    return open_stream


def test_a_stream_that_breaks_is_read_from_its_beginning_ever_later() -> None:
    streams = [broken(OSError("a")), failing(ConnectionError("b")), broken(OSError("c")), whole]
    assert run(streams) == (b"whole", [0.5, 1.0, 2.0])


def test_waiting_has_an_end() -> None:
    _, waited = run([failing(OSError("a"))] * 9 + [whole], attempts=10)
    assert waited == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_the_last_failure_is_raised() -> None:
    with pytest.raises(OSError, match=r"^second$"):
        run([broken(OSError("first")), broken(OSError("second")), whole], attempts=2)


@pytest.mark.parametrize("error", [Final("gone"), ZeroDivisionError("a bug")])
def test_what_trying_again_does_not_mend_is_raised_at_once(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        run([failing(error), whole])


def test_a_stream_that_stalls_is_given_up() -> None:
    for_ever = threading.Event()
    started = time.monotonic()
    data, waited = run([lambda: Breaking(b"who", for_ever), whole], stall=0.1)
    assert data == b"whole" and waited == [0.5] and time.monotonic() - started < 3
    with pytest.raises(TimeoutError, match=r"nothing came for 0\.1 s"):
        run([lambda: Breaking(b"", for_ever)], attempts=1, stall=0.1)
    for_ever.set()
    deadline = time.monotonic() + 5
    while fetchers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not fetchers()


def test_a_writer_that_fails_leaves_no_thread_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "CHUNK_BYTES", 1)

    def write(chunk_of: Callable[[], bytes]) -> None:
        chunk_of()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fetch(lambda: io.BytesIO(bytes(100)), write, name="x", attempts=3, stall_seconds=60)
    deadline = time.monotonic() + 5
    while fetchers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not fetchers()


def fetchers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "unlabeled-fetch"]


def test_a_reader_that_is_slow_gets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "CHUNK_BYTES", 3)
    content = bytes(range(100))
    got: list[bytes] = []

    def write(chunk_of: Callable[[], bytes]) -> None:
        while chunk := chunk_of():
            got.append(chunk)
            if len(got) == 2:
                time.sleep(0.3)  # longer than the stall limit, which is for the other side

    fetch(lambda: io.BytesIO(content), write, name="x", attempts=1, stall_seconds=0.1)
    assert b"".join(got) == content and {len(chunk) for chunk in got} == {3, 1}
