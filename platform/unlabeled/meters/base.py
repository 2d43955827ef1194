"""The contract of a meter."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import torch

from unlabeled.methods.base import Method, MethodOutput


class Meter(abc.ABC):
    """Numbers gathered over an epoch; the constructor is `__init__(self, config, *, method)`.

    A meter changes nothing of the training and draws no random numbers from the global generators.
    `compute` is called on every rank at the same time and may communicate.
    """

    def __init__(self, config: object, *, method: Method) -> None:
        self.config = config
        self.method = method

    @abc.abstractmethod
    def update(self, output: MethodOutput) -> None:
        """Take in one micro-batch."""

    @abc.abstractmethod
    def compute(self) -> dict[str, float]:
        """The numbers of the epoch, equal on every rank; empty if nothing was seen."""

    @abc.abstractmethod
    def reset(self) -> None:
        """Forget the epoch."""

    def state(self) -> dict[str, Any]:
        """What this rank has seen of the epoch, as tensors and plain values, for a checkpoint.

        A meter without it begins anew where a run is continued within an epoch.
        """
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave; tensors come from the CPU."""
        assert not state, f"{type(self).__name__} cannot take {sorted(state)}"

    @property
    def device(self) -> torch.device:
        """Where the outputs are."""
        return next(self.method.parameters()).device
