"""Processes find each other, and where they do not they say who, where and how long."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from unlabeled.distributed.group import process_group
from unlabeled.distributed.rendezvous import FromEnvironment, Published, SharedFile
from unlabeled.errors import EnvironmentProblem


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def meet(file: Path, world_size: int) -> list[str]:
    """What every rank reads from the store after rank 0 wrote into it."""

    def rank(number: int) -> str:
        store = Published(file, "127.0.0.1").store(number, world_size, 20)
        if number == 0:
            store.set("word", f"from {file.name}")
        met.wait()  # rank 0 holds the store: it must not leave before the others have read
        text: bytes = store.get("word")
        met.wait()
        return text.decode()

    met = threading.Barrier(world_size, timeout=20)
    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(rank, range(world_size)))


def test_all_ranks_reach_the_store_of_rank_0(tmp_path: Path) -> None:
    assert meet(tmp_path / "a", 4) == ["from a"] * 4


def test_the_address_of_an_earlier_start_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(f"127.0.0.1:{closed_port()}")
    assert meet(tmp_path / "a", 3) == ["from a"] * 3


def test_jobs_on_one_host_take_ports_of_their_own(tmp_path: Path) -> None:
    stores = [Published(tmp_path / name, "127.0.0.1").store(0, 2, 5) for name in "abc"]
    assert len({(tmp_path / name).read_text() for name in "abc"}) == len(stores)


def test_an_address_that_never_comes_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"rank 2 on here: rank 0 wrote no address") as e:
        Published(tmp_path / "a", "here").store(2, 3, 0.3)
    assert str(tmp_path / "a") in str(e.value)
    assert "within 0.3 s" in str(e.value)


def test_an_address_where_nobody_answers_is_named(tmp_path: Path) -> None:
    port = closed_port()
    (tmp_path / "a").write_text(f"127.0.0.1:{port}")
    with pytest.raises(EnvironmentProblem, match=rf"rank 1 could not .* at 127\.0\.0\.1:{port} "):
        Published(tmp_path / "a", "here").store(1, 2, 0.3)


@pytest.mark.slow
def test_an_environment_where_nobody_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    port = closed_port()
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(EnvironmentProblem, match=rf"rank 1 could not .* at 127\.0\.0\.1:{port} "):
        FromEnvironment().store(1, 2, 1)


@pytest.mark.slow
def test_ranks_that_never_come_are_named(tmp_path: Path) -> None:
    alone = process_group(
        rank=1,
        world_size=4,
        rendezvous=SharedFile(tmp_path / "store"),
        device=torch.device("cpu"),
        timeout_seconds=5,
        connect_seconds=0.5,
    )
    with pytest.raises(EnvironmentProblem, match=r"waited 0\.5 s in vain for ranks 0, 2, 3 of 4"):
        alone.__enter__()
