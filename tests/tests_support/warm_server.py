"""A Python that has imported what takes seconds to import, and forks for every command.

    python warm_server.py SOCKET

A command is one connection: its description and its standard streams come in, its process id and,
when it ends, its status go out. The fork leaves the loop and runs the module at the top of this
script, so that it ends as every Python does: exit handlers, signals, status. What ends in .py is a
script's path, all else the name of a module. The ranks that the command starts are forks as well:
tests of how they start use `commands.unlabeled`. The server ends when its standard input does, with
the process that started it.
"""

from __future__ import annotations

import atexit
import gc
import json
import multiprocessing.context
import os
import runpy
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

LONGEST_DESCRIPTION = 1 << 20
CHOICES = ("dataset=synthetic", "scale=small")
"""Of nearly all commands: composing them takes a fifth of a second, once for all forks."""


def serve(listener: socket.socket) -> dict[str, Any]:
    """Fork for every connection; returns in the fork, with the description of its command."""
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)  # the byte in `woken` is what counts
    running: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([listener, woken, sys.stdin], [], [])
        if sys.stdin in ready:
            sys.exit()
        if woken in ready:
            woken.recv(4096)
            _bury(running)
        if listener in ready:
            connection, _ = listener.accept()
            text, streams, _, _ = socket.recv_fds(connection, LONGEST_DESCRIPTION, 2)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                # Ignored here if the tests run in the background of a shell.
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for each in (listener, woken, wake, connection, *running.values()):
                    each.close()
                return _become(json.loads(text), streams)
            for stream in streams:
                os.close(stream)
            running[pid] = connection
            connection.sendall(f"{pid}\n".encode())


def _bury(running: dict[int, socket.socket]) -> None:
    """Report the status of every command that has ended."""
    for pid in list(running):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            with running.pop(pid) as connection:
                connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _become(command: dict[str, Any], streams: list[int]) -> dict[str, Any]:
    """Take the command's place: session, streams, folder, environment and path of modules."""
    os.setsid()
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(command["cwd"])
    os.environ.clear()
    os.environ.update(command["environment"])
    python_path = command["environment"].get("PYTHONPATH", "")
    script = command["module"].endswith(".py")
    first = os.path.dirname(command["module"]) if script else command["cwd"]
    sys.path[:0] = [first, *filter(None, python_path.split(os.pathsep))]
    sys.argv = [command["module"], *command["arguments"]]
    return command


if __name__ == "__main__":
    del sys.path[0]  # this script's folder
    doorway = socket.socket(socket.AF_UNIX)
    doorway.bind(sys.argv[1] + ".closed")
    doorway.listen()
    os.rename(sys.argv[1] + ".closed", sys.argv[1])
    sys.path.insert(0, os.fspath(Path(__file__).parents[2] / "platform"))
    from unlabeled import process

    atexit.register(gc.unfreeze)  # the last handler of commands that do not end quickly
    process.will_end_quickly()
    with process.importing():
        import hydra.main  # noqa: F401
        import numba
        import torch._dynamo  # noqa: F401
        import torchvision  # noqa: F401

        numba.njit(lambda: None)()  # the first function that it compiles or loads costs it a second
        import unlabeled.engine.pretrain  # noqa: F401
        from unlabeled.config.compose import compose_config
        from unlabeled.registry import names

    for method in ([], *([f"method={name}"] for name in names("method"))):
        compose_config("pretrain", [*CHOICES, *method])
    del sys.path[0]
    # A spawned rank would import everything anew, for six of the eight seconds that it takes.
    multiprocessing.context.SpawnContext.Process = multiprocessing.context.ForkProcess  # type: ignore
    program = serve(doorway)["module"]
    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
