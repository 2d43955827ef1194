"""Data inside installed packages, found without importing these, which takes seconds."""

from __future__ import annotations

import importlib.util
import os


def installed_file(package: str, path: str) -> str | None:
    """Where an installed package has a file, be it there or not; None without the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return os.path.join(spec.submodule_search_locations[0], path)
