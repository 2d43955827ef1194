"""Models that are too large for one rank, built one parameter after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._pytree import tree_iter, tree_map

from unlabeled.distributed.shards import own_rows

FILLS = {"uniform_", "normal_", "bernoulli_", "exponential_", "log_normal_", "cauchy_"}
"""Random numbers in place of what a tensor held."""
BY_ELEMENT = {"zero_", "fill_", "mul_", "add_", "sub_", "div_", "clamp_", "erfinv_", "neg_", "pow_"}
"""Operations in place that treat every element alone, here with numbers alone."""


class NotInPieces(Exception):
    """A constructor comes back to a parameter and needs all of it."""


class Pieces:
    """This rank's rows of the parameters that are being made, and all of the one at work.

    Only one parameter is whole at any time; its rows are kept when another one takes its place.
    """

    def __init__(self) -> None:
        self._rows: list[Tensor] = []
        self._whole: tuple[int, Tensor] | None = None

    def begin(self, parameter: nn.Parameter) -> nn.Parameter:
        """A parameter in the place of `parameter`, whose values it has."""
        self._rows.append(torch.empty(0))
        number = len(self._rows) - 1
        self.put(number, parameter.detach())
        return nn.Parameter(_Piece(parameter, self, number), parameter.requires_grad)

    def copy(self, parameter: _Piece) -> nn.Parameter:
        """Another parameter with the values of `parameter`; it is not whole."""
        whole = self.whole(parameter.number)
        rows = self._rows[parameter.number] if whole is None else whole[own_rows(len(whole))]
        self._rows.append(rows.clone())
        piece = _Piece(parameter, self, len(self._rows) - 1)
        return nn.Parameter(piece, parameter.requires_grad)

    def put(self, number: int, whole: Tensor) -> None:
        """Let a parameter be the whole one."""
        self.flush()
        self._whole = number, whole

    def flush(self) -> None:
        """Keep of the whole parameter the rows of this rank."""
        if self._whole is not None:
            number, whole = self._whole
            self._rows[number] = whole[own_rows(len(whole))].clone()
            self._whole = None

    def whole(self, number: int) -> Tensor | None:
        """A parameter if it is the whole one."""
        return self._whole[1] if self._whole is not None and self._whole[0] == number else None

    def rows(self, number: int) -> Tensor:
        """The rows of a parameter that is not whole."""
        return self._rows[number]

    def release(self, module: nn.Module) -> dict[str, Tensor]:
        """Put large parameters of `module` on the meta device; returns their rows, by name."""
        self.flush()
        found: dict[str, Tensor] = {}
        empty: dict[int, nn.Parameter] = {}  # one for every tied parameter
        for name, parameter in list(module.named_parameters(remove_duplicate=False)):
            if isinstance(parameter, _Piece):
                number = parameter.number
                if number not in empty:
                    found[name] = self._rows[number]
                    bare = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
                    empty[number] = nn.Parameter(bare, parameter.requires_grad)
                owner, _, own_name = name.rpartition(".")
                module.get_submodule(owner).register_parameter(own_name, empty[number])
        return found


class _Piece(Tensor):
    """Stands for a parameter while it is made; what is done to it happens in `Pieces`."""

    pieces: Pieces
    number: int
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls: type[_Piece], like: Tensor, pieces: Pieces, number: int) -> _Piece:
        self: _Piece = torch.Tensor._make_wrapper_subclass(cls, like.shape, dtype=like.dtype)
        self.pieces, self.number = pieces, number
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Parameter:
        return self.pieces.copy(self)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, name = kwargs or {}, function.overloadpacket.__name__
        used = [value for value in tree_iter((args, kwargs)) if isinstance(value, _Piece)]
        first = used[0]
        if name == "detach":
            return _Piece(first, first.pieces, first.number)
        changed = function._schema.arguments[0].alias_info
        in_place = changed is not None and changed.is_write and args[0] is first
        if in_place and first.pieces.whole(first.number) is None:
            if name in FILLS:
                first.pieces.put(first.number, torch.empty(first.shape, dtype=first.dtype))
            elif name in BY_ELEMENT and not any(
                map(torch.is_tensor, tree_iter((args[1:], kwargs)))
            ):
                function(first.pieces.rows(first.number), *args[1:], **kwargs)
                return first
        result = function(*tree_map(_whole, args), **tree_map(_whole, kwargs))
        return first if in_place else result


def _whole(value: Any) -> Any:
    if not isinstance(value, _Piece):
        return value
    whole = value.pieces.whole(value.number)
    if whole is None:
        raise NotInPieces(f"a parameter of shape {tuple(value.shape)} is changed after others")
    return whole


@contextmanager
def building_pieces() -> Iterator[Pieces]:
    """Modules built in this context keep of their large parameters the rows of this rank.

    Parameters of two dimensions and more are whole one at a time, while they are initialised.
    A deep copy of a module copies the rows of its parameters.
    Every random number is drawn as it would be without this context, so the model is the same, bit
    for bit. Smaller parameters and buffers are made as ever. `Pieces.release` ends it for a module.
    NotInPieces where a constructor comes back to a parameter after it began another one, except to
    overwrite it by random numbers or to change it element by element.
    """
    pieces = Pieces()

    def registered(module: nn.Module, name: str, parameter: Any) -> Any:
        if parameter is None or isinstance(parameter, _Piece) or parameter.ndim < 2:
            return None
        return pieces.begin(parameter)

    hook = register_module_parameter_registration_hook(registered)
    try:
        yield pieces
    finally:
        hook.remove()
