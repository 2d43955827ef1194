"""How much memory the tensors of a computation take at once."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from unlabeled.distributed.shards import local


class LiveStorages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages that operations make while the context is open.

    `live`: those that are still there; `peak`: the most there ever were at once, with the `held`
    bytes that the caller adds for what this process only stands for. Views and operations in place
    make no storage. Tensors from before do not count, nor does what a kernel takes for itself.
    Works on tensors without memory as on real ones.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = self.held = 0
        self._known: set[int] = set()

    def ignore(self, tensors: Iterable[Tensor]) -> None:
        """Storages that were there before: operations in place return them."""
        self._known |= {tensor.untyped_storage()._cdata for tensor in tensors}

    def hold(self, size: int) -> None:
        """Add bytes that stay until the end."""
        self.held += size
        self.peak = max(self.peak, self.live + self.held)

    def __torch_dispatch__(
        self,
        function: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self._note(local(value))  # of a shard the rows that are there
        return result

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place, size = storage._cdata, storage.nbytes()
        if place in self._known:
            return
        self._known.add(place)
        self.live += size
        self.peak = max(self.peak, self.live + self.held)
        weakref.finalize(storage, self._forget, place, size)

    def _forget(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.live -= size
