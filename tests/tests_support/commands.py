"""Run this checkout's code in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def python(*arguments: str, cwd: Path = ROOT, before: str = "") -> subprocess.CompletedProcess[str]:
    """`python ARGUMENTS` with this checkout's package on the path; `before` goes ahead of it."""
    path = os.pathsep.join(part for part in (before, str(ROOT / "platform")) if part)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )


def unlabeled(
    *arguments: str, cwd: Path = ROOT, before: str = ""
) -> subprocess.CompletedProcess[str]:
    """`unlabeled ARGUMENTS`, as a person would type it."""
    return python("-m", "unlabeled", *arguments, cwd=cwd, before=before)
