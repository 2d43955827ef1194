"""The part of a checkpoint of which every rank holds some rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unlabeled.distributed.shards import is_sharded, local, own_rows
from unlabeled.engine.checkpoint_files import shard_file
from unlabeled.errors import CheckpointError

METHOD, SLOTS = "method/", "optimizer/"


def take_shards(
    method: dict[str, Any], slots: dict[int, dict[str, Any]]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Take the sharded tensors out of the method's state and of the optimizer's, by their names."""
    of_method = {name: method.pop(name) for name in list(method) if is_sharded(method[name])}
    of_slots = {
        f"{number}/{key}": slot.pop(key)
        for number, slot in slots.items()
        for key in list(slot)
        if isinstance(slot[key], Tensor) and is_sharded(slot[key])
    }
    return of_method, of_slots


def shard_content(method: Mapping[str, Tensor], slots: Mapping[str, Tensor]) -> dict[str, Any]:
    """What this rank writes of them: its rows, which are the living ones, and where they begin."""
    starts = {f"{METHOD}{name}": own_rows(len(tensor)).start for name, tensor in method.items()}
    starts |= {f"{SLOTS}{name}": own_rows(len(tensor)).start for name, tensor in slots.items()}
    return {
        "method": {name: local(tensor) for name, tensor in method.items()},
        "optimizer": {"state": {name: local(tensor) for name, tensor in slots.items()}},
        "first_row": starts,
    }


def write_content(
    write: Callable[[bytes | memoryview], object], content: Mapping[str, Any]
) -> None:
    """Give `write` the file of a `shard_content`."""
    from unlabeled.distributed.shard_files import write_shards

    rows = {f"{METHOD}{name}": tensor for name, tensor in content["method"].items()}
    rows |= {f"{SLOTS}{name}": tensor for name, tensor in content["optimizer"]["state"].items()}
    write_shards(write, rows, content["first_row"])


def has_shards(folder: Path) -> bool:
    """Whether sharded tensors lie beside `shared.pt`."""
    return (folder / shard_file(0)).is_file()


def stored_method(folder: Path) -> dict[str, Tensor]:
    """The names and shapes of the method's sharded tensors in a checkpoint, on the meta device."""
    if not has_shards(folder):
        return {}
    from unlabeled.distributed.shard_files import stored_shards

    found = stored_shards(folder)
    return {n.removeprefix(METHOD): t for n, t in found.items() if n.startswith(METHOD)}


def whole_shards(folder: Path, prefix: str) -> dict[str, Tensor]:
    """The method's sharded tensors whose names begin with `prefix`, whole, on this rank alone."""
    found = {n: torch.empty(t.shape, dtype=t.dtype) for n, t in stored_method(folder).items()}
    found = {n: t for n, t in found.items() if n.startswith(prefix)}
    if found:
        from unlabeled.distributed.shard_files import load_shards

        load_shards(folder, {f"{METHOD}{n}": t for n, t in found.items()}, together=False)
    return found


def load_method(folder: Path, method: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Fill the method from the whole tensors `state` and the shards in `folder`; all ranks.

    Names and shapes are known to agree. Either side may be sharded and the other one not.
    """
    own = method.state_dict()
    stored = stored_method(folder)
    method.load_state_dict({n: t for n, t in state.items() if not is_sharded(own[n])}, strict=False)
    for name, tensor in state.items():
        if is_sharded(own[name]):
            _copy_rows(own[name], tensor)
    if stored:
        from unlabeled.distributed.shard_files import load_shards

        load_shards(folder, {f"{METHOD}{n}": own[n] for n in stored}, together=True)


def load_optimizer(
    folder: Path, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
) -> None:
    """Fill the optimizer from what was stored whole and from the shards in `folder`; all ranks."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    slots = {number: dict(slot) for number, slot in state["state"].items()}
    for number, slot in slots.items():
        for key, value in slot.items():
            if isinstance(value, Tensor) and is_sharded(params[number]) and value.ndim:
                slot[key] = _copy_rows(torch.zeros_like(params[number]), value)
    wanted: dict[str, Tensor] = {}
    if has_shards(folder):
        from unlabeled.distributed.shard_files import load_shards, stored_shards

        for name, tensor in stored_shards(folder).items():
            if name.startswith(SLOTS):
                number, key = name.removeprefix(SLOTS).split("/")
                if int(number) >= len(params) or params[int(number)].shape != tensor.shape:
                    raise CheckpointError(
                        f"{folder} holds {key} {tuple(tensor.shape)} of another model's optimizer"
                    )
                made = torch.zeros_like(params[int(number)])
                slots.setdefault(int(number), {})[key] = wanted[name] = made
        load_shards(folder, wanted, together=True)
    optimizer.load_state_dict({**state, "state": slots})


def _copy_rows(target: Tensor, whole: Tensor) -> Tensor:
    local(target).copy_(whole[own_rows(len(whole))])
    return target
