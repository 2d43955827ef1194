"""The help of all scripts that are named, from one process: most import torch."""

from __future__ import annotations

import runpy
import sys

for script in sys.argv[1:]:
    sys.argv, status = [script, "--help"], 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        status = end.code or 0  # type: ignore[assignment]
    print("ended with", status)
