"""A plugin: a hook that notes which images every rank was given, at every step."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlabeled.distributed import comm
from unlabeled.hooks.base import Hook
from unlabeled.registry import register


@register("hook", "note_samples")
class NoteSamples(Hook):
    """Append a line to `<folder>/rank<r>` at every forward pass of training."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Where to."""

        folder: str
        """A folder that is there."""

    def before_fit(self, trainer: Any) -> None:
        """Look at what the method is called with."""

        def note(_: Any, arguments: tuple[Any, ...]) -> None:
            batch, micro_step = arguments
            line = [trainer.step, micro_step, comm.rank()]
            with Path(self.config.folder, f"rank{comm.rank()}").open("a", encoding="utf-8") as file:
                file.write(json.dumps([*line, batch.indices.tolist()]) + "\n")

        trainer.method.register_forward_pre_hook(note)
