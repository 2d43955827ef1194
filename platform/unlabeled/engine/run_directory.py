"""The run directory: the files of a run that tools and people rely on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from unlabeled.errors import CheckpointError, EnvironmentProblem

PACKAGES = ("unlabeled", "torch", "torchvision", "numpy", "Pillow", "timm", "hydra-core")


class RunDirectory:
    """Paths and files of one run; only rank 0 writes the shared ones."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()

    @property
    def config_file(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def weights(self) -> Path:
        """Folder of the exported backbone."""
        return self.path / "weights"

    @property
    def results(self) -> Path:
        """Folder of evaluation results."""
        return self.path / "results"

    @property
    def metrics_file(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def log_file(self) -> Path:
        """What was printed, with times."""
        return self.path / "log.txt"

    @property
    def status_file(self) -> Path:
        """How the run stands."""
        return self.path / "status.json"

    @property
    def job(self) -> Path:
        """Folder of the submission, for a run that a scheduler starts."""
        return self.path / "job"

    def create(self) -> None:
        """Make the folders; a file in the way or a read-only parent is the user's to mend."""
        try:
            for folder in (self.path, self.checkpoints, self.weights, self.results):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentProblem(
                f"run.dir: cannot make {self.path}: {error.strerror}"
            ) from error

    def read_config(self) -> dict[str, Any]:
        """The config that the run was started with."""
        return read_yaml(self.config_file)

    def metrics(self) -> Iterator[dict[str, Any]]:
        """Every whole line (a kill may have torn one); of a repeated step the last counts."""
        records: dict[tuple[Any, Any], dict[str, Any]] = {}
        if self.metrics_file.exists():
            for line in self.metrics_file.read_bytes().splitlines():
                try:
                    record = json.loads(line)
                except ValueError:  # half an object, or half a character
                    continue
                records[record.get("phase"), record.get("step")] = record
        yield from records.values()


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping from a YAML file of a run."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent}: not a run directory (no {path.name})") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: cannot be read ({reason})") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: expected a mapping, got {type(data).__name__}")
    return data


def write_atomically(path: Path, text: str) -> None:
    """Write beside and rename, so that a reader sees the old file or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise EnvironmentProblem(f"cannot write {path}: {error.strerror}") from error


def write_yaml(path: Path, data: Mapping[str, Any]) -> None:
    """A mapping, keys in their order."""
    write_atomically(path, yaml.safe_dump(dict(data), sort_keys=False, width=100))


class LineWriter:
    """Appends one JSON object a line with a single write, so a kill tears at most the last line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            os.write(self._file, b"\n")

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record."""
        line = json.dumps(record, allow_nan=True).encode() + b"\n"
        try:
            os.write(self._file, line)
        except OSError as error:
            raise EnvironmentProblem(f"cannot write {self.path}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def environment(world_size: int, device: str) -> dict[str, Any]:
    """Versions, machine, and the git commit of the folder the user works in."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "git": _git_state(),
        "device": device,
        "world_size": world_size,
        "cpus": os.cpu_count(),
    }


def _git_state() -> dict[str, Any] | None:
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        changes = subprocess.run(
            ["git", "status", "--porcelain"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "modified": bool(changes.strip())}
