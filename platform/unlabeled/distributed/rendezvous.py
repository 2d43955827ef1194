"""How the processes of a job find each other: a store that all of them reach."""

from __future__ import annotations

import abc
import os
import socket
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from unlabeled.errors import EnvironmentProblem


class Rendezvous(abc.ABC):
    """A meeting point, the same one on every rank."""

    @abc.abstractmethod
    def store(self, rank: int, world_size: int, seconds: float) -> dist.Store:
        """The store of the job; EnvironmentProblem if it is not reached within `seconds`."""


@dataclass(frozen=True)
class SharedFile(Rendezvous):
    """A file on the one machine that all processes run on: no port is taken."""

    file: Path

    def store(self, rank: int, world_size: int, seconds: float) -> dist.Store:
        """A file store; it waits for nobody."""
        return dist.FileStore(str(self.file), world_size)


@dataclass(frozen=True)
class FromEnvironment(Rendezvous):
    """MASTER_ADDR and MASTER_PORT, as torchrun sets them (it may hold the store itself)."""

    def store(self, rank: int, world_size: int, seconds: float) -> dist.Store:
        """A TCP store at the address of the environment."""
        limit = timedelta(seconds=seconds)
        try:
            store: dist.Store = next(dist.rendezvous("env://", rank, world_size, timeout=limit))[0]
        except (RuntimeError, ValueError) as error:
            host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
            raise _unreachable(rank, f"{host}:{port}", seconds, error) from error
        return store


@dataclass(frozen=True)
class Published(Rendezvous):
    """Rank 0 takes a free port on its host and writes `host:port` into a file that all can read.

    So jobs on one host never ask for the same port. An address of an earlier start is passed over,
    as nobody listens there any more.
    """

    file: Path
    host: str
    """This process's host, by the name under which the others know it."""

    def store(self, rank: int, world_size: int, seconds: float) -> dist.Store:
        """A TCP store on rank 0."""
        limit = timedelta(seconds=seconds)
        if rank == 0:
            store = dist.TCPStore(
                self.host, 0, world_size, is_master=True, timeout=limit, wait_for_workers=False
            )
            beside = self.file.with_name(f".{self.file.name}")
            beside.write_text(f"{self.host}:{store.port}", encoding="utf-8")
            os.replace(beside, self.file)
            return store
        host, port = self._listening(rank, seconds)
        try:
            return dist.TCPStore(host, port, world_size, is_master=False, timeout=limit)
        except (RuntimeError, ValueError) as error:
            raise _unreachable(rank, f"{host}:{port}", seconds, error) from error

    def _listening(self, rank: int, seconds: float) -> tuple[str, int]:
        """The published address, once somebody answers there."""
        deadline = time.monotonic() + seconds
        failure: Exception | None = None
        while True:
            if self.file.name in os.listdir(self.file.parent):  # NFS caches what is not there
                host, _, port = self.file.read_text(encoding="utf-8").rpartition(":")
                try:
                    socket.create_connection((host, int(port)), timeout=5).close()
                    return host, int(port)
                except OSError as error:
                    failure = error
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        if failure is not None:
            raise _unreachable(rank, f"{host}:{port}", seconds, failure)
        raise EnvironmentProblem(
            f"rank {rank} on {self.host}: rank 0 wrote no address into {self.file} within "
            f"{seconds:g} s; it did not start, or this folder is not shared by the nodes"
        )


def _unreachable(rank: int, address: str, seconds: float, error: Exception) -> EnvironmentProblem:
    reason = str(error).strip().split("\n", 1)[0]
    return EnvironmentProblem(
        f"rank {rank} could not connect to rank 0 at {address} within {seconds:g} s; check that "
        f"this host reaches that name and port ({reason})"
    )
