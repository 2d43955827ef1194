"""A web server and a handler of our own, both real; what they do wrong is said before."""

from __future__ import annotations

import functools
import io
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from iopath.common.file_io import PathHandler

from tests_support.shards import built, names, png, put_shard
from unlabeled.data.decode import BrokenImage
from unlabeled.data.index import fetching
from unlabeled.data.index.building import build
from unlabeled.data.index.fetching import Final
from unlabeled.data.index.inputs import plan
from unlabeled.data.index.reader import Index
from unlabeled.data.index.remote_files import Fetching, RemoteFiles, is_remote, manager
from unlabeled.data.sources.index import IndexedImages
from unlabeled.errors import ConfigError, DataError


class Server:
    """Files by path, faults to come by path (what to answer instead), and how often each came."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[str]] = {}
        self.asked: Counter[str] = Counter()
        self.url = ""
        self.go_on = threading.Event()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked[request.path] += 1
        faults, data = self.faults.get(request.path, []), self.files.get(request.path)
        fault = faults.pop(0) if faults else ""
        if fault.isdigit() or data is None:
            request.send_error(int(fault or 404))
            return
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data[: len(data) // 2] if fault else data)
        if fault == "stall":
            request.wfile.flush()
            self.go_on.wait(10)


class Request(BaseHTTPRequestHandler):
    def __init__(self, server: Server, *arguments: Any) -> None:
        self.answers = server
        super().__init__(*arguments)

    def do_GET(self) -> None:
        self.answers.answer(self)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setattr(fetching, "FIRST_DELAY_SECONDS", 0.001)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    state = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Request, state))
    state.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    state.go_on.set()
    http.shutdown()
    http.server_close()
    thread.join()


class Memory(PathHandler):  # type: ignore[misc]
    """memory://: what a plugin registers for its object store."""

    files: dict[str, bytes]

    def _get_supported_prefixes(self) -> list[str]:
        return ["memory://"]

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> Any:
        try:
            return io.BytesIO(self.files[path])
        except KeyError:
            raise FileNotFoundError(f"no object {path}") from None


@pytest.fixture
def memory() -> dict[str, bytes]:
    handler = Memory()
    handler.files = {}
    manager().register_handler(handler)
    return handler.files


def read(files: RemoteFiles, url: str) -> bytes:
    opened = files.open(url)
    return opened.read(0, opened.size + 1)


def remote(tmp_path: Path, **settings: Any) -> RemoteFiles:
    return RemoteFiles(Fetching(cache=str(tmp_path / "cache"), **settings))


def copies(tmp_path: Path) -> list[bytes]:
    found = [p for p in (tmp_path / "cache").iterdir() if p.suffix != ".lock"]
    return sorted(path.read_bytes() for path in found)


@pytest.mark.parametrize("faults", [["503", "429", "500"], ["cut", "503", "cut"], ["stall"]])
def test_a_server_that_fails_for_a_while_is_asked_again(
    server: Server, tmp_path: Path, faults: list[str]
) -> None:
    server.files["/a"] = os.urandom(3_000_000)
    server.faults["/a"] = list(faults)
    files = remote(tmp_path, stall_seconds=0.3)
    assert read(files, f"{server.url}/a") == server.files["/a"]
    assert server.asked["/a"] == len(faults) + 1
    assert read(files, f"{server.url}/a") == server.files["/a"]
    assert server.asked["/a"] == len(faults) + 1  # the second time from the copy
    assert copies(tmp_path) == [server.files["/a"]]


def test_what_is_not_there_is_asked_for_once(server: Server, tmp_path: Path) -> None:
    with pytest.raises(Final, match="404"):
        remote(tmp_path).open(f"{server.url}/a")
    assert server.asked["/a"] == 1 and not copies(tmp_path)


def test_a_file_that_failed_is_refused_for_a_minute(server: Server, tmp_path: Path) -> None:
    now = [100.0]
    files = RemoteFiles(Fetching(cache=str(tmp_path / "cache"), attempts=2), clock=lambda: now[0])
    server.faults["/a"] = ["503", "503", "503"]
    for _ in range(3):
        with pytest.raises(OSError, match="503"):
            files.open(f"{server.url}/a")
    assert server.asked["/a"] == 2
    server.files["/a"] = b"there"
    now[0] += 61
    assert read(files, f"{server.url}/a") == b"there"


def test_many_threads_fetch_a_file_once(server: Server, tmp_path: Path) -> None:
    server.files["/a"] = os.urandom(2_000_000)
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(read(remote(tmp_path), f"{server.url}/a")))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [server.files["/a"]] * 6 and server.asked["/a"] == 1


def test_the_cache_keeps_what_was_used_last_and_no_more_than_it_may(
    memory: dict[str, bytes], tmp_path: Path
) -> None:
    files = remote(tmp_path, cache_gb=2500e-9)  # two and a half of these files
    for name in "abcd":
        memory[f"memory://{name}"] = name.encode() * 1000
    first = files.open("memory://a")
    for name in "ba":
        time.sleep(0.01)
        files.open(f"memory://{name}")
    time.sleep(0.01)
    assert read(files, "memory://c") == b"c" * 1000
    assert copies(tmp_path) == [b"a" * 1000, b"c" * 1000]  # b was used longest ago
    time.sleep(0.01)
    memory["memory://big"] = bytes(5000)
    files.open("memory://big")
    assert copies(tmp_path) == [bytes(5000)]
    assert first.read(0, 2000) == b"a" * 1000  # which is removed, but open


def test_unknown_schemes_are_never_looked_for_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gopher:").mkdir()
    (tmp_path / "gopher:" / "a").write_text("local")
    with pytest.raises(Final, match="nothing is registered that reads gopher://"):
        remote(tmp_path).open("gopher://a")


def test_a_cache_that_others_write_to_is_refused(memory: dict[str, bytes], tmp_path: Path) -> None:
    memory["memory://a"] = b"a"
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    with pytest.raises(OSError, match="give another as cache"):
        remote(tmp_path).open("memory://a")


@pytest.mark.parametrize(
    ("path", "expected"),
    [("s3://a/b", True), (b"https://x", True), ("a/b", False), ("://", False), ("/a://b", False)],
)
def test_a_scheme_makes_a_path_remote(path: str | bytes, expected: bool) -> None:
    assert is_remote(path) == expected


@pytest.fixture
def shards(server: Server, tmp_path: Path) -> list[str]:
    """Two shards of three images on the server."""
    for shard in range(2):
        members = [(f"{n}.png", png(10 * shard + n)) for n in range(3)]
        put_shard(tmp_path / "s.tar", members)
        server.files[f"/data/{shard}.tar"] = (tmp_path / "s.tar").read_bytes()
    return [f"{server.url}/data/{shard}.tar" for shard in range(2)]


def index_of(inputs: list[str], out: Path) -> Path:
    build(plan(inputs, root=None, folder_labels=False, sizes=False), out, workers=1)
    return out


def opened(idx: Path, **fields: Any) -> IndexedImages:
    return IndexedImages(IndexedImages.Config(root=str(idx), **fields), split="train")


def test_images_of_shards_on_a_server(
    server: Server, shards: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    idx = index_of(shards, tmp_path / "idx")
    assert names(Index(idx)) == ["0.png", "1.png", "2.png"] * 2
    source = opened(idx, roots=[f"{server.url}/data"], cache=str(tmp_path / "other"))
    reds = [int(source.image(index)[0, 0, 0]) for index in (5, 0, 4, 1, 3, 2)]
    assert reds == [12, 0, 11, 1, 10, 2]
    assert max(server.asked.values()) == 2  # to build, and for the other cache
    assert not caplog.records  # the time of a copy says nothing of its shard
    assert source.name(4) == f"{shards[1]}/1.png"


def test_addresses_need_leave(server: Server, shards: list[str], tmp_path: Path) -> None:
    idx = index_of(shards, tmp_path / "idx")
    for roots in ([], ["https://127.0.0.1/data"], [f"{server.url}/dat"], [f"{server.url}1"]):
        with pytest.raises(DataError, match=r"names images in http://.*/data/0\.tar, outside"):
            opened(idx, roots=roots)
    source = opened(idx, roots=[server.url])
    for hostile in (b"/x/../a.tar", b"/%2E%2e/a.tar", b"/a\\..\\b"):
        with pytest.raises(BrokenImage, match="leads out"):
            source.opener._roots.resolve(server.url.encode() + hostile)


def test_a_shard_that_changed_or_left_the_server_is_broken(
    server: Server, shards: list[str], tmp_path: Path
) -> None:
    idx = index_of(shards, tmp_path / "idx")
    server.files["/data/0.tar"] = server.files["/data/1.tar"][512:]
    del server.files["/data/1.tar"]
    source = opened(idx, anywhere=True, cache=str(tmp_path / "other"), attempts=1)
    for index, reason in ((1, "written anew"), (3, "404"), (4, "404")):
        with pytest.raises(BrokenImage, match=reason):
            source.image(index)
    assert server.asked["/data/1.tar"] == 2


def test_lists_may_name_images_anywhere(memory: dict[str, bytes], tmp_path: Path) -> None:
    memory["memory://bucket/a/1.png"] = png(5)
    (tmp_path / "list.txt").write_text("memory://bucket/a/1.png\nmemory://bucket/gone.png\n")
    built(tmp_path / "idx", tmp_path / "list.txt")
    source = opened(tmp_path / "idx", roots=["memory://bucket"])
    assert source.name(0) == "memory://bucket/a/1.png"
    assert source.image(0)[0, 0, 0] == 5
    with pytest.raises(BrokenImage, match="no object"):
        source.image(1)
    assert not list(tmp_path.glob("unlabeled-remote-*"))  # single images are not kept
    with pytest.raises(ConfigError, match=r"shards \(\.tar\) can be indexed"):
        index_of(["memory://bucket/a"], tmp_path / "idx2")
