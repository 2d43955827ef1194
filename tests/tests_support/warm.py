"""Real processes of the command that start at once, forked from one that has imported torch.

A process of its own imports for three seconds; a test of what happens to a run does not need them.
Tests of how the command starts use `commands.unlabeled`.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import IO

SERVER = Path(__file__).with_name("warm_server.py")


class Warm:
    """A module that runs as a process, with the part of `subprocess.Popen` that tests use.

    Its parent is the warm server, and it leads a session of its own.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        cwd: Path,
        environment: dict[str, str],
        stdout: IO[str],
        stderr: IO[str],
    ) -> None:
        description = {
            "module": module,
            "arguments": arguments,
            "cwd": str(cwd),
            "environment": environment,
        }
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(str(_server()))
        streams = [stdout.fileno(), stderr.fileno()]
        socket.send_fds(self._connection, [json.dumps(description).encode()], streams)
        self._lines = self._connection.makefile("r")
        self.pid = int(self._lines.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The status if it has ended; minus the signal that it died of."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.returncode = int(self._lines.readline())
            self._lines.close()
            self._connection.close()
        return self.returncode

    def wait(self, timeout: float) -> int:
        """The status at its end; TimeoutError if that has not come after `timeout` seconds."""
        if self.returncode is None and not select.select([self._connection], [], [], timeout)[0]:
            raise TimeoutError(f"process {self.pid} had not ended after {timeout} s")
        status = self.poll()
        assert status is not None
        return status

    def send_signal(self, number: signal.Signals) -> None:
        """Send it, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and its end."""
        self.send_signal(signal.SIGKILL)
        self.wait(timeout=60)


def run(
    module: str, *arguments: str, cwd: Path, environment: dict[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """The module's process at its end, with its output."""
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        process = Warm(
            module, *arguments, cwd=cwd, environment=environment, stdout=stdout, stderr=stderr
        )
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
        for each in (stdout, stderr):
            each.seek(0)
        return subprocess.CompletedProcess(arguments, status, stdout.read(), stderr.read())


@cache
def _server() -> Path:
    """The socket of this process's server, which is started at the first use."""
    folder = tempfile.TemporaryDirectory(prefix="unlabeled-warm-")
    path = Path(folder.name, "socket")
    without = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(SERVER), str(path)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, env=without)
    atexit.register(folder.cleanup)
    atexit.register(server.communicate)  # the end of its standard input is its end
    deadline = time.monotonic() + 60
    while not path.exists():
        assert server.poll() is None and time.monotonic() < deadline, "no warm server"
        time.sleep(0.01)
    return path
