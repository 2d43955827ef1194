"""Who holds the parameters of a run and how its gradients become means over ranks."""

from __future__ import annotations

import abc
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from unlabeled.distributed.group import data_parallel, without_gradient_averaging
from unlabeled.distributed.shards import clip_each_grad


class Parallel(abc.ABC):
    """A module as the ranks train it together; called as the module itself is."""

    grad_scaler: type[torch.amp.GradScaler] = torch.amp.GradScaler
    """Scales the losses of float16 and finds what overflowed."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @abc.abstractmethod
    def __call__(self, *args: Any) -> Any:
        """The module's forward pass."""

    @abc.abstractmethod
    def accumulating(self) -> AbstractContextManager[Any]:
        """For all but the last micro-batch of an accumulated step, forward and backward."""

    @abc.abstractmethod
    def complete_gradients(self) -> None:
        """After the last backward pass of a step: every gradient is the mean over ranks."""

    @abc.abstractmethod
    def clip_grad_norm(self, max_norm: float) -> Tensor:
        """Scale the gradients so that the norm of all is at most `max_norm`; returns what it was.

        On every rank the norm is that of the whole gradient.
        """

    def clip_each_grad(self, max_norm: float) -> None:
        """Scale the gradient of each parameter so that its own norm is at most `max_norm`."""
        clip_each_grad(self.module.parameters(), max_norm)


class DataParallel(Parallel):
    """Every rank holds all parameters; gradients are averaged in backward. Alone: the module."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        super().__init__(module)
        self._averaged = data_parallel(module, device)

    def __call__(self, *args: Any) -> Any:
        return self._averaged(*args)

    def accumulating(self) -> AbstractContextManager[Any]:
        return without_gradient_averaging(self._averaged)

    def complete_gradients(self) -> None:
        """Backward has done it."""

    def clip_grad_norm(self, max_norm: float) -> Tensor:
        return torch.nn.utils.clip_grad_norm_(self.module.parameters(), max_norm)
