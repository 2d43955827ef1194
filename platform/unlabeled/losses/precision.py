"""The precision in which every loss computes, whatever arrives and whatever autocast is active."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """The same values in float32, or untouched if they are wider; half types are promoted."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def without_autocast(tensor: Tensor) -> AbstractContextManager[None]:
    """A context in which no operation on the tensor's device is lowered to a half type."""
    return torch.autocast(device_type=tensor.device.type, enabled=False)
