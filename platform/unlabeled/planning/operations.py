"""What a computation does: its floating-point operations, and the bytes that these move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only
from torch.utils.flop_counter import flop_registry

from unlabeled.distributed.shards import local

ALLOCATE = {
    torch.ops.aten.empty,
    torch.ops.aten.empty_like,
    torch.ops.aten.empty_strided,
    torch.ops.aten.new_empty,
}
"""Operations that make a tensor and write nothing."""


class Operation(NamedTuple):
    """One kernel, as eager mode runs them."""

    flops: int
    """2 for every multiply-add of a convolution or matrix product; 0 for everything else."""
    bytes: int
    """Of the tensors that it reads, and of those that it makes or changes."""
    dtype: torch.dtype
    """Of what it gives: it decides on which units of a GPU a product runs."""


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what is computed while the context is open, in forward and backward passes alike.

    `done`: every operation but views; `flops`: of all of them. Of a tensor whose rows are divided
    among ranks, those of this rank count. Works on tensors without memory as on real ones.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.done: list[Operation] = []
        self.flops = 0

    def __torch_dispatch__(
        self,
        function: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        self._note(function, *tree_map_only(Tensor, local, (args, kwargs, result)))
        return result

    def _note(
        self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any
    ) -> None:
        read = [value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)]
        given = [value for value in tree_iter(result) if isinstance(value, Tensor)]
        if not function._schema.is_mutable:
            there = {tensor.untyped_storage()._cdata for tensor in read}
            given = [t for t in given if t.untyped_storage()._cdata not in there]
        if given and function.overloadpacket not in ALLOCATE:
            moved = sum(tensor.numel() * tensor.element_size() for tensor in (*read, *given))
            flops = _flops(function, args, kwargs, result)
            self.done.append(Operation(flops, moved, given[0].dtype))
            self.flops += flops


def _flops(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> int:
    if function is torch.ops.aten.convolution_backward.default:
        # torch's own formula counts a grouped convolution as if it had no groups.
        gradient, inputs, weight, transposed, wanted = (args[n] for n in (0, 1, 2, 7, 10))
        places = inputs if transposed else gradient
        return 2 * int(places.numel() * weight[0].numel() * sum(wanted[:2]))
    formula = flop_registry.get(function.overloadpacket)
    return int(formula(*args, **kwargs, out_val=result)) if formula is not None else 0
