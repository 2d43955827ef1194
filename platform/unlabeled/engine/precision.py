"""The number type of the forward pass, and the loss scaling that float16 needs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast and gradient scaling for one precision; float32 makes every call the identity."""

    def __init__(
        self,
        name: str,
        device: torch.device,
        grad_scaler: type[torch.amp.GradScaler] = torch.amp.GradScaler,
    ) -> None:
        self.device_type = device.type
        self.dtype = TYPES[name]
        self.scaler = grad_scaler(device.type, enabled=name == "fp16")

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of every forward pass."""
        enabled = self.dtype is not torch.float32
        return torch.autocast(
            self.device_type, dtype=self.dtype if enabled else None, enabled=enabled
        )

    def backward(self, loss: Tensor) -> None:
        """Scaled backward pass."""
        torch.autograd.backward(self.scaler.scale(loss))

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """True gradients in `.grad`, for clipping and for optimizers that use norms."""
        self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """The update, skipped by the scaler when a float16 gradient overflowed."""
        self.scaler.step(optimizer)
        self.scaler.update()
