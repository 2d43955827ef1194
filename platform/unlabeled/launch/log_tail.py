"""The end of a run's log, once or as it grows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from unlabeled.errors import ConfigError
from unlabeled.launch.job_listing import report_run

TAIL_BYTES = 1 << 20
LOOK_SECONDS = 0.5
STATE_SECONDS = 5.0
"""Between two questions whether the run has ended: a scheduler is asked no oftener."""


def last_lines(run: Path, count: int) -> list[str]:
    """The last lines of log.txt, or before there is one of its job's output."""
    found = report_run(run).log
    if found is None:
        raise ConfigError(f"{run}: there is no log yet; `unlabeled jobs {run}` says how it stands")
    log = _Log(found)
    lines = [*log.begin(), *log.end()]
    return lines[len(lines) - min(count, len(lines)) :]


def followed_lines(run: Path, count: int) -> Iterator[str]:
    """The last lines and all that follow, until the run has ended."""
    log: _Log | None = None
    while True:
        report = report_run(run)
        asked = time.monotonic()
        if report.log is not None and (log is None or report.log != log.path):
            log = _Log(report.log)
            lines = log.begin()
            yield from lines[len(lines) - min(count, len(lines)) :]
        while True:
            # Read after the state was asked for, so that nothing is missed of a run that has ended.
            yield from log.more() if log else []
            if not report.may_run:
                yield from log.end() if log else []
                return
            if time.monotonic() > asked + STATE_SECONDS:
                break
            time.sleep(LOOK_SECONDS)


@dataclass
class _Log:
    """A file that grows at its end, and how far it was read; half a line waits for its rest."""

    path: Path
    offset: int = 0
    rest: bytes = b""

    def begin(self) -> list[str]:
        """The whole lines among the last bytes."""
        self.offset = max(0, self.path.stat().st_size - TAIL_BYTES)
        cut = self.offset > 0
        return self.more()[1 if cut else 0 :]

    def more(self) -> list[str]:
        """Whole lines that came since."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            new = file.read()
        self.offset += len(new)
        *lines, self.rest = (self.rest + new).split(b"\n")
        return [_text(line) for line in lines]

    def end(self) -> list[str]:
        """A last line without an end."""
        return [_text(self.rest)] if self.rest else []


def _text(line: bytes) -> str:
    return line.decode(errors="replace").rstrip("\r")
