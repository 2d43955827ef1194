"""Byte ranges from a real server, which keeps to them, or does one of the things servers do."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests_support.shards import built, png, put_shard
from unlabeled.data.decode import BrokenImage
from unlabeled.data.index import fetching
from unlabeled.data.index.building import build
from unlabeled.data.index.fetching import Final
from unlabeled.data.index.inputs import plan
from unlabeled.data.index.remote_files import Fetching, RemoteFiles
from unlabeled.data.index.web import WebFile
from unlabeled.data.sources.index import IndexedImages

DATA = bytes(range(256)) * 16


class Server(ThreadingHTTPServer):
    """One file at any address. faults: what to do instead, request by request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.content, self.faults, self.sent = DATA, list[str](), list[tuple[int, int]]()
        self.go_on = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/s.tar"


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        fault = self.server.faults.pop(0) if self.server.faults else ""
        content = self.server.content
        if fault.isdigit():
            self.send_error(int(fault))
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = (0, len(content) - 1) if asked is None else map(int, asked.groups())
        if first >= len(content):
            self.send_error(416)
            return
        if fault == "ignore":
            asked = None
        if fault == "shift":
            first += 1
        part = content if asked is None else content[first : last + 1]
        self.send_response(200 if asked is None else 206)
        if asked is not None:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.server.sent.append((first, len(part)))
        self.wfile.write(part[: len(part) // 2] if fault in ("cut", "stall") else part)
        if fault == "stall":
            self.wfile.flush()
            self.server.go_on.wait(10)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setattr(fetching, "FIRST_DELAY_SECONDS", 0.001)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.01,))
        thread.start()
        yield found
        found.go_on.set()
        found.shutdown()
        thread.join()


def ranges(tmp_path: Path, attempts: int = 3, stall_seconds: float = 5.0) -> RemoteFiles:
    cache = str(tmp_path / "cache")
    return RemoteFiles(Fetching(cache, 20.0, stall_seconds, attempts, ranges=True))


@pytest.mark.parametrize(
    ("start", "length"), [(0, 1), (0, 4096), (1000, 96), (4095, 1), (4000, 500), (4096, 10)]
)
def test_a_range_is_those_bytes_and_no_others_are_sent(
    server: Server, tmp_path: Path, start: int, length: int
) -> None:
    wanted = DATA[start : start + length]
    assert ranges(tmp_path).read_range(server.url, start, length) == wanted
    assert sum(sent for _, sent in server.sent) == len(wanted)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("chunk", [1, 7, 100, 1000])
def test_a_range_is_read_in_chunks_each_by_its_own_request(
    server: Server, tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "CHUNK_BYTES", chunk)
    assert ranges(tmp_path).read_range(server.url, 50, 20) == DATA[50:70]
    assert len(server.sent) == -(-20 // chunk)


def test_a_file_of_the_web_streams_until_it_is_sought(server: Server) -> None:
    file = WebFile(server.url)
    assert file.read(3) + file.read(5) == DATA[:8] and len(server.sent) == 1
    file.seek(300)
    assert file.read(4) + file.read(2) == DATA[300:306]
    assert server.sent[1:] == [(300, 4), (304, 2)]
    file.close()


@pytest.mark.parametrize("faults", [["503", "429"], ["cut", "cut"], ["stall"], ["408", "cut"]])
def test_a_range_that_fails_for_a_while_is_asked_for_again(
    server: Server, tmp_path: Path, faults: list[str]
) -> None:
    server.faults = list(faults)
    assert ranges(tmp_path, stall_seconds=0.3).read_range(server.url, 5, 500) == DATA[5:505]
    assert not server.faults


@pytest.mark.parametrize(
    ("fault", "reason"), [("ignore", "ranges"), ("shift", "ranges"), ("404", "404")]
)
def test_what_will_not_change_is_not_asked_for_again(
    server: Server, tmp_path: Path, fault: str, reason: str
) -> None:
    server.faults = [fault] * 3
    files = ranges(tmp_path)
    for _ in range(2):  # the second time it is known
        with pytest.raises(Final, match=reason):
            files.read_range(server.url, 5, 500)
    assert len(server.faults) == 2


def test_members_of_a_shard_by_range_are_those_of_the_copy(server: Server, tmp_path: Path) -> None:
    put_shard(tmp_path / "s.tar", [(f"{n}.png", png(n)) for n in range(40)])
    server.content = (tmp_path / "s.tar").read_bytes()
    units = plan([server.url], root=None, folder_labels=False, sizes=False)
    build(units, tmp_path / "idx", workers=1)
    before = len(server.sent)
    source = IndexedImages(
        IndexedImages.Config(
            root=str(tmp_path / "idx"),
            roots=[server.url.removesuffix("/s.tar")],
            remote="ranges",
            cache=str(tmp_path / "cache"),
            attempts=1,
        ),
        split="train",
    )
    for index in (39, 0, 17):
        assert source.image(index)[0, 0, 0] == index
    assert all(sent < 1024 for _, sent in server.sent[before:])  # of 40 KB
    assert not (tmp_path / "cache").exists()
    server.content = server.content[: source.index.entry(20).offset + 10]
    with pytest.raises(BrokenImage, match="the shard ends before it"):
        source.image(20)
    put_shard(tmp_path / "s.tar", [(f"{n}.png", png(n)) for n in reversed(range(40))])
    server.content = (tmp_path / "s.tar").read_bytes()
    with pytest.raises(BrokenImage, match="written anew"):
        source.image(3)
    server.faults = ["500"]
    with pytest.raises(BrokenImage, match="500"):
        source.image(3)


def test_streams_that_cannot_be_sought_are_refused_with_the_way_out(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(WebFile, "seek")
    with pytest.raises(Final, match=r"without seek; use dataset\.remote=copy"):
        ranges(tmp_path).read_range(server.url, 0, 5)


def test_local_shards_are_read_as_ever(tmp_path: Path) -> None:
    put_shard(tmp_path / "s.tar", [("0.png", png(9))])
    built(tmp_path / "idx", tmp_path / "s.tar")
    config = IndexedImages.Config(root=str(tmp_path / "idx"), remote="ranges")
    assert IndexedImages(config, split="train").image(0)[0, 0, 0] == 9
