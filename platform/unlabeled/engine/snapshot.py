"""A copy of a state in CPU memory, taken fast because the memory is kept for the next one."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

Place = tuple[Any, ...]
"""Keys and numbers that lead to a value in nested dicts and lists."""


class Snapshot:
    """Copies nested dicts, lists and tuples of tensors and immutable values, again and again.

    The memory of a tensor is allocated when it is first seen and filled again by the next `take`,
    which ends the life of the last copy: pages that a process touches for the first time cost
    several times what copying into them does. From a GPU the copy runs in the current stream, into
    page-locked memory. Tensors of the CPU at or below the places `later`, each of three steps, are
    left to `finish`.
    """

    def __init__(self, later: Collection[Place]) -> None:
        self._later = later
        self._memory: dict[Place, Tensor] = {}
        self._left: list[tuple[Tensor, Tensor]] = []
        self._gpu: torch.device | None = None
        self._delivered: torch.cuda.Event | None = None

    def take(self, state: dict[str, Any]) -> dict[str, Any]:
        """The copy, whole after `finish` and `delivered`; `state` may change in place at once.

        But for what lies at or below `later`: that may change only after `finish`.
        """
        memory: dict[Place, Tensor] = {}
        copy: dict[str, Any] = self._copy(state, (), memory)
        self._memory = memory
        if self._gpu is not None:
            self._delivered = torch.cuda.current_stream(self._gpu).record_event()
        return copy

    def finish(self) -> None:
        """Copy what was left; any thread may call this."""
        while self._left:
            kept, tensor = self._left.pop()
            kept.copy_(tensor)

    def delivered(self) -> None:
        """Wait for what comes from the GPU, which changes nothing there before it has sent it."""
        if self._delivered is not None:
            self._delivered.synchronize()

    def _copy(self, value: Any, place: Place, memory: dict[Place, Tensor]) -> Any:
        if isinstance(value, Tensor):
            memory[place] = self._filled(value.detach(), place)
            return memory[place]
        if isinstance(value, dict):
            return {key: self._copy(item, (*place, key), memory) for key, item in value.items()}
        if isinstance(value, list | tuple):
            items = [self._copy(item, (*place, n), memory) for n, item in enumerate(value)]
            return items if isinstance(value, list) else tuple(items)
        return value

    def _filled(self, tensor: Tensor, place: Place) -> Tensor:
        kept = self._memory.get(place)
        if kept is None or kept.shape != tensor.shape or kept.dtype != tensor.dtype:
            kept = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
        if tensor.is_cuda:
            self._gpu = tensor.device
        elif place[:3] in self._later:
            self._left.append((kept, tensor))
            return kept
        return kept.copy_(tensor, non_blocking=True)
