"""A copy of the code that a job runs: an edit made while it waits in a queue does not change it."""

from __future__ import annotations

import importlib.util
import shutil
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import unlabeled
from unlabeled.errors import ConfigError, EnvironmentProblem


def snapshot(folder: Path, plugins: Sequence[str]) -> Path:
    """Copy this package and the plugins' top-level modules into `folder`, anew; returns it.

    What is installed among Python's own packages stays there. ConfigError for a plugin that cannot
    be found, EnvironmentProblem for what cannot be copied.
    """
    try:
        _fill(folder, plugins)
    except shutil.Error as error:  # of one or more files: source, target and what went wrong
        raise EnvironmentProblem(
            f"cannot copy the code into {folder}: {error.args[0][0][2]}"
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise EnvironmentProblem(f"cannot copy the code into {folder}: {reason}") from error
    return folder


def _fill(folder: Path, plugins: Sequence[str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    own = unlabeled.__file__
    assert own is not None
    _copy(Path(own), folder)
    for name in dict.fromkeys(plugin.partition(".")[0] for plugin in plugins):
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ConfigError(f"plugins: cannot find {name!r}")
        if spec.origin is not None and not _installed(Path(spec.origin)):
            _copy(Path(spec.origin), folder)
        elif spec.origin is None:  # a folder without __init__.py
            for place in spec.submodule_search_locations or ():
                _copy_folder(Path(place), folder / name)


def _installed(file: Path) -> bool:
    """Whether pip or Python itself put it there; an environment may look into those of another."""
    library = sysconfig.get_path("stdlib")
    return not {"site-packages", "dist-packages"}.isdisjoint(file.parts) or file.is_relative_to(
        library
    )


def _copy(origin: Path, folder: Path) -> None:
    """A package (by its __init__.py) or a single module."""
    if origin.name == "__init__.py":
        _copy_folder(origin.parent, folder / origin.parent.name)
    else:
        shutil.copy(origin, folder / origin.name)


def _copy_folder(source: Path, target: Path) -> None:
    # Links are followed: configs is one, to a folder outside of the package. Compiled files come
    # along (times are kept, so they stay valid), or every rank would compile the package at once.
    shutil.copytree(source, target, ignore=_left_out)


def _left_out(folder: str, names: Sequence[str]) -> set[str]:
    """The history, and links that lead nowhere: an editor's locks are such."""
    return {name for name in names if name == ".git" or not Path(folder, name).exists()}
