"""Which process a number stands for: numbers are given again once their process has ended."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")


def process_identity(pid: int) -> str | None:
    """A name that no other process of this machine ever has; None if `pid` runs no longer.

    On Linux `<boot>:<clock ticks from the boot to its start>`. Without /proc it is the number
    alone, which a later process may be given again.
    """
    if pid <= 0:
        return None
    if not (PROC / "self" / "stat").exists():
        return str(pid) if _answers(pid) else None
    try:
        stat = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the command, in brackets, may hold anything
    state, start = fields[0], fields[19]
    return None if state in "ZX" else f"{boot}:{start}"


def command_line(pid: int) -> str:
    """The command of a process, words parted by spaces; empty if it cannot be told."""
    try:
        words = (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return ""
    return words.replace(b"\0", b" ").decode(errors="replace").strip()


def descendants(pid: int) -> list[int]:
    """The process and those that it started, and those that they started; parents first."""
    try:
        children = (PROC / str(pid) / "task" / str(pid) / "children").read_text(encoding="ascii")
    except OSError:
        children = ""
    return [pid, *(each for child in children.split() for each in descendants(int(child)))]


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, but there
        return True
    return True
