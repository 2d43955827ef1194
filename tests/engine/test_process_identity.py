"""A process is known by more than its number."""

from __future__ import annotations

import os
import subprocess
import sys

from unlabeled.engine.process_identity import command_line, process_identity


def test_a_process_keeps_its_name_and_no_other_has_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "print(); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()  # before that, a process may still have no command line
        mine, its = process_identity(os.getpid()), process_identity(child.pid)
        assert mine == process_identity(os.getpid()) is not None
        assert its is not None and its != mine
        assert command_line(child.pid).endswith("-c print(); input()")
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert process_identity(child.pid) is None  # dead, though its parent has not yet asked
    assert process_identity(child.pid) is None
    assert command_line(child.pid) == ""


def test_a_command_may_hold_brackets_and_spaces() -> None:
    """/proc/<pid>/stat writes the name in brackets, unescaped."""
    rename = "open('/proc/self/comm', 'w').write(') R 1 (x'); print(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", rename], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        before = process_identity(child.pid)
        assert child.stdout is not None
        child.stdout.readline()
        assert process_identity(child.pid) == before is not None
        child.kill()


def test_numbers_that_no_process_has() -> None:
    assert [process_identity(pid) for pid in (0, -1, 2**31 - 1)] == [None, None, None]
