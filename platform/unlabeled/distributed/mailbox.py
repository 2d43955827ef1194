"""Small texts between ranks outside of any collective."""

from __future__ import annotations

import torch.distributed as dist


class Mailbox:
    """Every rank's newest text, in the store of the job; any thread may use it at any time."""

    def __init__(self, store: dist.Store, rank: int, world_size: int) -> None:
        self._store, self._rank, self._world_size = store, rank, world_size

    def send(self, text: str) -> None:
        """Put this rank's text in the place of its last one; RuntimeError if the store is gone."""
        self._store.set(f"mail/{self._rank}", text)

    def read_all(self) -> list[str | None]:
        """Every rank's newest text, in rank order; None of a rank that sent none."""
        keys = [f"mail/{rank}" for rank in range(self._world_size)]
        return [self._store.get(key).decode() if self._store.check([key]) else None for key in keys]
