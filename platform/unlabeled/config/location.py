"""Where the YAML files are: in the package, by a link in a checkout and as files in a wheel."""

from __future__ import annotations

from pathlib import Path

from unlabeled.errors import EnvironmentProblem


def config_dir() -> Path:
    """The folder that holds every YAML, one sub-folder per kind or choice."""
    folder = Path(__file__).resolve().parents[1] / "configs"
    if not folder.is_dir():
        raise EnvironmentProblem(
            f"no configuration files at {folder}: install the package again, or, in a checkout "
            "on a file system without symbolic links, copy the top-level configs folder there"
        )
    return folder
