"""What each rank holds of the parameters, and what it gathers at once."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from unlabeled.config.schema import PretrainConfig
from unlabeled.engine.sharding import divided_parameters, units, whole_parameters
from unlabeled.methods.base import Method


@dataclass(frozen=True)
class Shares:
    """The parameters of a run as its ranks hold them.

    sharded: the names of those of which every rank holds some rows; divided: those among them that
    are never gathered; units: the modules that are gathered at once, inner ones first, with the
    names of what is gathered; the last one, the module itself, may have nothing left.
    """

    world_size: int
    sharded: frozenset[str]
    divided: frozenset[str]
    units: tuple[tuple[nn.Module, tuple[str, ...]], ...]

    def numbers(self, name: str, parameter: nn.Parameter) -> int:
        """How many numbers of a parameter the first rank holds: of rows as many as the fullest."""
        if name not in self.sharded:
            return parameter.numel()
        rows = -(-len(parameter) // self.world_size)
        return rows * (parameter.numel() // len(parameter))

    def share(self, name: str, parameter: nn.Parameter) -> float:
        """The same as a part of the whole parameter."""
        return self.numbers(name, parameter) / parameter.numel()


def shares_of(config: PretrainConfig, method: Method) -> Shares:
    """How the ranks of a run hold the parameters of its method; nothing of them is changed."""
    world_size = config.launch.fields.processes
    if config.sharding != "fsdp" or world_size == 1:
        return Shares(world_size, frozenset(), frozenset(), ())
    whole = whole_parameters(method)
    left = {name: p for name, p in method.named_parameters() if p not in whole}
    sharded = frozenset(left)
    never_gathered = divided_parameters(method)
    divided = frozenset(name for name, p in left.items() if p in never_gathered)
    left = {name: p for name, p in left.items() if name not in divided}
    gathered = []
    for unit in [*units(method), method]:
        own = set(unit.parameters())
        names = tuple(name for name, p in left.items() if p in own)
        left = {name: p for name, p in left.items() if name not in names}
        gathered.append((unit, names))
    return Shares(world_size, sharded, divided, tuple(gathered))
