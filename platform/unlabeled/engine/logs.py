"""What is printed: messages for people on the terminal, and the same with times in log.txt."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unlabeled.printable import printable


@contextmanager
def log_to(file: Path | None, *, terminal: bool) -> Iterator[None]:
    """Send the package's log to standard output and to a file, to one of them, or nowhere."""
    root = logging.getLogger("unlabeled")
    handlers: list[logging.Handler] = [logging.NullHandler()]
    if terminal:
        shown = logging.StreamHandler(sys.stdout)
        shown.setFormatter(_Printable("%(message)s"))
        handlers.append(shown)
    if file is not None:
        kept = logging.FileHandler(file, encoding="utf-8")
        kept.setFormatter(_Printable("%(asctime)s %(levelname)s %(message)s"))
        handlers.append(kept)
    level, propagate = root.level, root.propagate
    root.setLevel(logging.INFO)
    root.propagate = False
    for handler in handlers:
        root.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)
        root.propagate = propagate


class _Printable(logging.Formatter):
    """What names of files bring along neither drives a terminal nor looks like a line of the log.

    News may have several lines, as tables do; warnings, which name what is broken, have one.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        lines = super().formatMessage(record).split("\n")
        if record.levelno > logging.INFO:
            return printable(" ".join(lines))
        return "\n".join(map(printable, lines))
