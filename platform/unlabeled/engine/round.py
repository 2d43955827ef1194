"""What the steps of a round leave for its record: their losses, and what meters gather."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unlabeled.meters.base import Meter
from unlabeled.methods.base import MethodOutput


class Round:
    """Numbers of the present round, which a checkpoint keeps: an interruption changes no record."""

    def __init__(self, meters: list[Meter]) -> None:
        self.meters = meters
        self.losses: list[float] = []

    def add(self, loss: float, outputs: Sequence[MethodOutput]) -> None:
        """A step: its mean loss over ranks and micro-batches, and this rank's micro-batches."""
        self.losses.append(loss)
        for output in outputs:
            for meter in self.meters:
                meter.update(output)

    def numbers(self) -> dict[str, float]:
        """The mean loss and the meters' numbers so far; all ranks call this together."""
        found = {"loss": sum(self.losses) / len(self.losses)}
        for meter in self.meters:
            found.update(meter.compute())
        return found

    def reset(self) -> None:
        """Begin the next."""
        self.losses.clear()
        for meter in self.meters:
            meter.reset()

    def of_rank(self) -> list[dict[str, Any]]:
        """What this rank's meters hold; the losses are those of all ranks."""
        return [meter.state() for meter in self.meters]

    def load(self, losses: Sequence[float], of_rank: Sequence[Mapping[str, Any]] | None) -> None:
        """Go on with what a checkpoint kept.

        Meters begin anew where there is nothing for them: of another number of ranks.
        """
        self.losses = list(losses)
        for meter, state in zip(self.meters, of_rank or (), strict=False):
            meter.load_state(state)
