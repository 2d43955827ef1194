"""Tensors and modules that have a shape, a type and a device, and no memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode

from unlabeled.errors import ConfigError


@contextmanager
def without_memory() -> Iterator[None]:
    """Tensors that are made in this context are of the CPU for whoever asks, and hold nothing.

    Every operation gives results of the right shape, type and layout, forward and backward, under
    autocast too. Who reads a number finds 1, true, or of an integer (a place, a count) 0; masks
    choose all, and sizes that were read out of tensors are equal parts. ConfigError where that is
    not enough.
    """
    with FakeTensorMode(), _WithoutValues():  # type: ignore[no-untyped-call]
        try:
            yield
        except (DynamicOutputShapeException, DataDependentOutputException) as error:
            raise ConfigError(
                f"this run cannot be planned: the shape of what {error.func} gives depends on the "
                "values of tensors, and a plan has none"
            ) from error


TAKES_MASKS = {
    torch.ops.aten.index,
    torch.ops.aten.index_put,
    torch.ops.aten.index_put_,
    torch.ops.aten._index_put_impl_,
}
"""Operations whose second argument holds indices, of which each may be a mask."""


class _WithoutValues(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(
        self,
        function: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is torch.ops.aten._local_scalar_dense.default:
            kind = args[0].dtype
            return int(kind.is_floating_point or kind == torch.bool)
        if function is torch.ops.aten.nonzero.default:
            return torch.zeros(args[0].numel(), args[0].ndim, dtype=torch.int64)
        if function is torch.ops.aten.bincount.default:
            return torch.zeros(args[2] if len(args) > 2 else 2, dtype=torch.int64)
        if function is torch.ops.aten.split_with_sizes.default:
            dim = args[2] if len(args) > 2 else 0
            args = (args[0], _parts(args[0].shape[dim], args[1]), *args[2:])
        if function.overloadpacket in TAKES_MASKS:
            args = (args[0], _places(args[1]), *args[2:])
        return function(*args, **(kwargs or {}))


def _places(indices: list[Tensor | None]) -> list[Tensor | None]:
    """Indices with the places of all elements instead of each mask."""
    found: list[Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype == torch.bool:
            found += [torch.zeros(index.numel(), dtype=torch.int64) for _ in range(index.ndim)]
        else:
            found.append(index)
    return found


def empty_tensors(
    module: nn.Module, dtype: Callable[[nn.Parameter], torch.dtype] = lambda p: p.dtype
) -> None:
    """Give a module new parameters and buffers in the place of those that it has, inside of
    `without_memory`; of the meta device, say, on which nothing is computed under autocast.

    `dtype`: the type of each new parameter. What was one tensor is one again.
    """
    made: dict[int, Tensor] = {}

    def empty(tensor: Tensor, kind: torch.dtype) -> Tensor:
        return torch.empty(tensor.shape, dtype=kind, device="cpu")

    for part in list(module.modules()):
        for name, parameter in list(part.named_parameters(recurse=False)):
            if id(parameter) not in made:
                values = empty(parameter, dtype(parameter))
                made[id(parameter)] = nn.Parameter(values, parameter.requires_grad)
            part.register_parameter(name, made[id(parameter)])  # type: ignore[arg-type]
        for name, buffer in list(part.named_buffers(recurse=False)):
            made.setdefault(id(buffer), empty(buffer, buffer.dtype))
            setattr(part, name, made[id(buffer)])


def _parts(total: int, sizes: list[int]) -> list[int]:
    """The sizes if they add up to the total; else as many that do, as equal as can be."""
    if sum(sizes) == total:
        return sizes
    count = len(sizes)
    return [total * (n + 1) // count - total * n // count for n in range(count)]
