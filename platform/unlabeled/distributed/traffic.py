"""What this rank says to the others: every collective with its bytes and who asked for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PACKAGE = __name__.partition(".")[0]


@dataclass(frozen=True)
class Collective:
    """One call: its operation, and the tensors that this rank brings into it.

    operation: torch's name of it, e.g. `allreduce_`; elements and bytes: of all tensors that the
    rank puts in (of an all-gather its own part; of a broadcast the tensor, on the source as on the
    others); callers: the package's modules that were at work, the innermost first. A gradient
    that DDP reduces has no module of `distributed` among them. group: how many ranks take part,
    where those are not all.
    """

    operation: str
    elements: int
    bytes: int
    callers: tuple[str, ...]
    group: int | None = None

    def sent(self, world_size: int) -> float:
        """Bytes that each of n ranks sends when they form a ring, for what the rank puts in, b.

        All-reduce 2 (n - 1) / n b, all-gather (n - 1) b, everything else at most b.
        """
        ranks = self.group or world_size
        if self.operation.startswith("allreduce"):
            return 2 * (ranks - 1) / ranks * self.bytes
        if "allgather" in self.operation:
            return float((ranks - 1) * self.bytes)
        return float(self.bytes)


@contextmanager
def counted() -> Iterator[list[Collective]]:
    """Collect every collective of this rank while the context is open, in the order of the calls.

    All of torch's collectives pass the dispatcher as operations of the namespace c10d, also those
    that DDP starts in C++ for the gradients; a dispatch mode sees them there. It follows backward
    passes, but not other threads of the program. Nothing that is computed changes; every operation
    takes some microseconds more, so time without it.
    """
    found: list[Collective] = []
    with _Listener(found):
        yield found


class _Listener(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, found: list[Collective]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found = found

    def __torch_dispatch__(
        self,
        function: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function.namespace == "c10d":
            self._found.append(_collective(function, args))
        return function(*args, **(kwargs or {}))


def _collective(function: Any, args: tuple[Any, ...]) -> Collective:
    """The rank's part is the first argument that is no output: `tensors`, `input_tensor` ..."""
    names = [argument.name for argument in function._schema.arguments]
    parts = [v for n, v in zip(names, args, strict=False) if not n.startswith("output")]
    tensors = list(_tensors(parts[0]))
    return Collective(
        operation=function.overloadpacket.__name__,
        elements=sum(t.numel() for t in tensors),
        bytes=sum(t.numel() * t.element_size() for t in tensors),
        callers=_callers(),
        group=_group(dict(zip(names, args, strict=False)).get("process_group")),
    )


def _group(handle: Any) -> int | None:
    """Ranks of a process group as an operation is given it; None for that of all ranks."""
    size = None if handle is None else int(dist.ProcessGroup.unbox(handle).size())
    return None if size == dist.get_world_size() else size


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of nested lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _callers() -> tuple[str, ...]:
    frame: FrameType | None = sys._getframe(1)
    found: list[str] = []
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith(f"{PACKAGE}.") and name != __name__ and name not in found[-1:]:
            found.append(name)
        frame = frame.f_back
    return tuple(found)
