"""The safetensors format, written tensor by tensor: a model passes through a rank, and never lies
in it.

Eight bytes say how long the header is; the header is JSON, `{name: {dtype, shape, data_offsets}}`,
padded with spaces to a multiple of eight; the tensors' bytes follow, in C order, little end first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from unlabeled.distributed.shards import whole

TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(
    write: Callable[[bytes | memoryview], object],
    tensors: Mapping[str, Tensor],
    facts: Mapping[str, str] | None = None,
) -> None:
    """Give a safetensors file to `write`, piece by piece; `facts` are its metadata.

    Sharded tensors are gathered one at a time, so all ranks call this together with the same names,
    and those that write nothing pass a `write` that forgets. Beside them the largest tensor takes
    memory. Tensors of wide types come first, so that every one lies aligned.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    write(_header({name: tensors[name] for name in order}, facts))
    for name in order:
        tensor = whole(tensors[name].detach())
        if tensor.numel():
            bytes_of = tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            write(bytes_of.data)


def _header(tensors: Mapping[str, Tensor], facts: Mapping[str, str] | None) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(facts)} if facts else {}
    start = 0
    for name, tensor in tensors.items():
        stop = start + tensor.numel() * tensor.element_size()
        entries[name] = {
            "dtype": TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
