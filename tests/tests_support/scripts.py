"""Runs a script of extra_scripts/ inside the test's own process."""

from __future__ import annotations

import io
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from tests_support.commands import ROOT


def script(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`python extra_scripts/NAME.py ARGUMENTS` without starting another interpreter.

    The file is run as `__main__`, so its exit status and all it prints are what a person gets. An
    exception that it lets out, which a person would see as a traceback, comes out here as well.
    """
    path = ROOT / "extra_scripts" / f"{name}.py"
    out, err, status = io.StringIO(), io.StringIO(), 0
    before, sys.argv = sys.argv, [str(path), *map(str, arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            runpy.run_path(str(path), run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = before
    return subprocess.CompletedProcess(sys.argv, status, out.getvalue(), err.getvalue())
