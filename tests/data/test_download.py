"""Fetching over http from a server of the test: whole and as published, or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests_support.web import Served, serving
from unlabeled.data.download import fetch
from unlabeled.errors import ConfigError, DataError, EnvironmentProblem

CONTENT = bytes(range(256)) * 9000
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def web() -> Iterator[Served]:
    with serving() as server:
        server.files["set.tgz"] = CONTENT
        yield server


def test_a_file_is_fetched_once(web: Served, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    target = tmp_path / "deep" / "set.tgz"
    for _ in range(2):
        fetch(
            f"{web.address}/some/where/set.tgz",
            target,
            checksum=SHA256,
            tell=lambda what, done, total: told.append((done, total)),
        )
    assert target.read_bytes() == CONTENT and web.asked == ["set.tgz"]
    assert told[-1] == (2, 2)
    md5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
    fetch(f"{web.address}/set.tgz", tmp_path / "again.tgz", checksum=md5)
    fetch(f"{web.address}/set.tgz", tmp_path / "unchecked.tgz")
    assert (tmp_path / "unchecked.tgz").read_bytes() == CONTENT


def test_half_a_file_or_another_one_is_refused(web: Served, tmp_path: Path) -> None:
    target, url = tmp_path / "set.tgz", f"{web.address}/set.tgz"
    web.shortened["set.tgz"] = 1_500_000
    for checksum in (None, SHA256):
        with pytest.raises(DataError, match=r"ended after 1,500,000 of 2,304,000 bytes; try again"):
            fetch(url, target, checksum=checksum)
    web.shortened.clear()
    web.files["set.tgz"] = CONTENT[:-1] + b"x"
    with pytest.raises(DataError, match="is not the published file or only a part of it"):
        fetch(url, target, checksum=SHA256)
    with pytest.raises(DataError, match="the server says 404"):
        fetch(f"{web.address}/gone.tgz", target)
    assert os.listdir(tmp_path) == []


def test_a_file_of_one_s_own_is_never_replaced(web: Served, tmp_path: Path) -> None:
    (tmp_path / "set.tgz").write_bytes(CONTENT[:1000])
    with pytest.raises(DataError, match="remove it, and give the same command again"):
        fetch(f"{web.address}/set.tgz", tmp_path / "set.tgz", checksum=SHA256)
    assert (tmp_path / "set.tgz").read_bytes() == CONTENT[:1000] and web.asked == []


def test_a_server_that_is_not_there_is_the_machine_s_problem(web: Served, tmp_path: Path) -> None:
    with serving() as gone:
        address = gone.address
    with pytest.raises(EnvironmentProblem, match=r"cannot reach http://127\.0\.0\.1"):
        fetch(f"{address}/set.tgz", tmp_path / "set.tgz")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EnvironmentProblem, match="cannot fetch"):
        fetch(f"{web.address}/set.tgz", tmp_path / "file" / "set.tgz")
    with pytest.raises(ConfigError, match="is no address to fetch from"):
        fetch("file:///etc/passwd", tmp_path / "set.tgz")
