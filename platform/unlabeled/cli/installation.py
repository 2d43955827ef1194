"""Is there a torch, and do torch and torchvision fit each other?"""

from __future__ import annotations

import importlib
import importlib.metadata

from unlabeled.errors import EnvironmentProblem
from unlabeled.process import importing

# What a broken or mismatched binary installation raises on import: a missing module, a shared
# library that does not load, an operator or attribute of the other version.
IMPORT_FAILURES = (ImportError, OSError, RuntimeError, AttributeError)

REINSTALL = (
    "install both again in one command and from one index: "
    "pip install --upgrade --force-reinstall torch torchvision "
    "(with the --index-url of your torch, if it came from another index than PyPI)"
)


def version(distribution: str) -> str | None:
    """The installed version of a distribution, None without one."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_torch() -> None:
    """Import torch and torchvision; EnvironmentProblem says what to install if that fails."""
    for name in ("torch", "torchvision"):
        try:
            with importing():
                importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise EnvironmentProblem(_broken(name, error)) from error
            raise EnvironmentProblem(
                f"{name} is not installed: pip install torch torchvision (both in one command)"
            ) from error
        except IMPORT_FAILURES as error:
            raise EnvironmentProblem(_broken(name, error)) from error


def _broken(name: str, error: Exception) -> str:
    reason = " ".join(str(error).split())
    if name == "torch":
        return f"torch {version('torch')} is installed but does not import ({reason}); {REINSTALL}"
    return (
        f"torchvision {version('torchvision')} does not fit torch {version('torch')}{_wanted()}: "
        f"{reason}; {REINSTALL}"
    )


def _wanted() -> str:
    """Which torch the installed torchvision declares, when it does."""
    try:
        declared = importlib.metadata.requires("torchvision") or []
    except importlib.metadata.PackageNotFoundError:
        return ""
    torch = [r for r in declared if r.split(";")[0].rstrip("=<>!~.0123456789 ()") == "torch"]
    return f" (it asks for {torch[0].replace(' ', '')})" if torch else ""
