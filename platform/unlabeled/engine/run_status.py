"""status.json: how a run stands, for those who look at it from outside."""

from __future__ import annotations

import json
import logging
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from typing import Any, get_type_hints

from unlabeled.engine.process_identity import process_identity
from unlabeled.engine.run_directory import RunDirectory, write_atomically
from unlabeled.errors import EnvironmentProblem, Interrupted, UserError

log = logging.getLogger(__name__)
STATES = ("running", "finished", "stopped", "failed")


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """The content of status.json; a killed process leaves `running` behind."""

    state: str
    """running, finished, stopped (by a signal, to be continued) or failed."""
    step: int
    """Optimizer steps done when this was written; while it runs, metrics.jsonl knows better."""
    last_step: int | None
    """Step at which the run is finished; null before the data set was counted."""
    started: str
    """When this process began (ISO 8601, UTC)."""
    ended: str | None
    host: str
    pid: int
    """Process of rank 0 on `host`."""
    process: str | None
    """Tells that process from a later one of the same number (`process_identity`)."""
    job: str | None
    """SLURM_JOB_ID of the environment."""
    reason: str | None
    """Why it stopped or failed, one line."""
    exit_status: int | None


def read_status(run: RunDirectory) -> RunStatus | None:
    """What status.json says; None if there is none or it holds something else."""
    try:
        data = json.loads(run.status_file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    hints = get_type_hints(RunStatus)
    if not isinstance(data, dict):
        return None
    values: dict[str, Any] = {field.name: data.get(field.name) for field in fields(RunStatus)}
    whole = all(isinstance(value, hints[name]) for name, value in values.items())
    if not whole or values["state"] not in STATES or moment(values["started"]) is None:
        return None
    return RunStatus(**values)


def moment(text: str) -> datetime | None:
    """An ISO 8601 time, UTC where it names no zone; None if it is none."""
    try:
        parsed = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)


def now() -> str:
    """The time as status.json writes it."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


class StatusWriter:
    """Writes status.json of a run that this process trains; `lead` on rank 0 alone.

    The other ranks only tell why they failed: they may know the cause and rank 0 no more than that
    a peer is gone.
    """

    def __init__(self, run: RunDirectory, *, lead: bool) -> None:
        self.run, self.lead = run, lead
        self._steps_done: Callable[[], int] = lambda: 0
        self._running: RunStatus | None = None

    def began(self) -> None:
        """The run has its directory; how far it is, only an earlier process may have told."""
        before = read_status(self.run)
        self._running = RunStatus(
            state="running",
            step=before.step if before else 0,
            last_step=before.last_step if before else None,
            started=now(),
            ended=None,
            host=platform.node(),
            pid=os.getpid(),
            process=process_identity(os.getpid()),
            job=os.environ.get("SLURM_JOB_ID"),
            reason=None,
            exit_status=None,
        )
        self._write(self._running)

    def training(self, steps_done: Callable[[], int], last_step: int) -> None:
        """Everything is built or restored: from here on `steps_done()` tells the step."""
        self._steps_done = steps_done
        if self._running is not None:
            self._write(replace(self._running, step=steps_done(), last_step=last_step))

    def ended(self, error: BaseException | None) -> None:
        """The run left by `error`, or at its last step.

        Of several ranks that failed, an error for people tells the cause; what broke on the others
        because of it does not replace it.
        """
        status = read_status(self.run)
        if status is None or (error is None and not self.lead):
            return
        if status.state != "running" and not isinstance(error, UserError):
            return
        state, reason, exit_status = _outcome(error)
        self._write(
            replace(
                status,
                state=state,
                step=max(self._steps_done(), status.step),
                ended=now(),
                reason=reason,
                exit_status=exit_status,
            )
        )

    def _write(self, status: RunStatus) -> None:
        write_atomically(self.run.status_file, json.dumps(asdict(status), indent=1) + "\n")


@contextmanager
def recorded_status(run: RunDirectory, *, lead: bool) -> Iterator[StatusWriter]:
    """Within, status.json says `running`; afterwards how it ended, whatever ended it but a kill."""
    writer = StatusWriter(run, lead=lead)
    if lead:
        writer.began()
    try:
        yield writer
    except BaseException as error:  # a Ctrl-C ends a run too; nothing is kept from the caller
        try:
            writer.ended(error)
        except EnvironmentProblem as problem:  # a full disk, as a rule the very error we have
            log.warning("%s", problem)
        raise
    writer.ended(None)


def _outcome(error: BaseException | None) -> tuple[str, str | None, int]:
    """State, reason and exit status of the command."""
    if error is None:
        return "finished", None, 0
    if isinstance(error, KeyboardInterrupt):
        return "stopped", "interrupted from the keyboard", 130
    line = next(iter(str(error).splitlines()), "")
    if isinstance(error, UserError):
        state = "stopped" if isinstance(error, Interrupted) else "failed"
        return state, line or type(error).__name__, error.exit_status
    return "failed", f"{type(error).__name__}: {line}".rstrip(": "), 1
