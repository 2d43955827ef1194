"""Errors meant for people: the value at fault, the way out, and the exit status of the command."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """An expected failure; its message is printed without a traceback."""

    exit_status = 1


class ConfigError(UserError):
    """One or more faults in the configuration, reported together before any work starts."""

    exit_status = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class DataError(UserError):
    """Images, labels or indexes are missing, empty, broken beyond tolerance or unusable."""

    exit_status = 3


class CheckpointError(UserError):
    """A checkpoint, weights file or run directory cannot be read or does not fit the model."""

    exit_status = 4


class EnvironmentProblem(UserError):
    """The machine lacks what was asked for: a device, disk space, a working installation."""

    exit_status = 5


class DivergenceError(UserError):
    """The loss became NaN or infinite; the last good checkpoint is kept."""

    exit_status = 6


class Interrupted(UserError):
    """A signal asked the run to stop; it did so after a step, and its checkpoint is written."""

    exit_status = 7
