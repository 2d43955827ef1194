"""The contract of a launcher."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import torch

Job = Callable[[Any, torch.device], None]
"""What runs in every process, inside its process group: `job(config, device)`."""


class Launcher(abc.ABC):
    """Gets a job its processes; the constructor is `__init__(self, config)`.

    The config of every launcher has `processes`, how many train together; `timeout_seconds`, after
    which a rank that waits for its peers gives up; and `connect_seconds`, for finding them.
    """

    def __init__(self, config: Any) -> None:
        self.config = config

    @abc.abstractmethod
    def run(self, job: Job, config: Any) -> None:
        """Run the job in all processes; returns when all have ended, raises what one raised."""
