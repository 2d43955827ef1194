"""Which checkpoint a run starts from, and whether it belongs to the same run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unlabeled.config.check import to_data
from unlabeled.config.schema import PretrainConfig
from unlabeled.engine import checkpoint
from unlabeled.engine.checkpoint import Checkpoint
from unlabeled.engine.data_identity import DataIdentity
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.errors import CheckpointError, ConfigError

log = logging.getLogger(__name__)
FREE = (
    "run",
    "resume",
    "max_steps",
    "round_samples",
    "launch",
    "sharding",
    "activation_checkpointing",
    "loader.kind",
    "loader.workers",
    "loader.prefetch_batches",
    "loader.max_broken_share",
    "loader.cache_gb",
    "hooks",
    "checkpoint",
    "device",
    "threads",
    "plugins",
)
"""Keys that may change when a run is continued: none of them changes what is computed,
but for the last bits (another device, number of threads or sharding adds in another order)."""


def find_checkpoint(config: PretrainConfig, run: RunDirectory) -> Path | None:
    """The checkpoint to continue from, or None for a fresh start.

    `auto`: the newest one in the run directory, if the config there is the same; `never`: none, and
    a run directory that holds checkpoints is refused; a path: a checkpoint or a run.
    """
    newest = checkpoint.newest(run.checkpoints)
    if config.resume == "never":
        if newest is not None:
            raise ConfigError(
                f"resume: never, but {run.path} holds a run ({newest.name}); give another run.dir"
            )
        return None
    if config.resume != "auto":
        return _named(Path(config.resume).expanduser())
    if newest is None:
        return None
    changed = list(changed_settings(run.read_config(), to_data(config)))
    if changed:
        raise ConfigError(
            [
                f"run.dir: {run.path} holds a run with other settings; continue it with its own, "
                "or give another run.dir",
                *changed,
            ]
        )
    return newest


def check_data(config: PretrainConfig, start: Checkpoint, now: DataIdentity) -> None:
    """The images must be those that the checkpoint was trained on, or the rest is of another order.

    ConfigError under `resume=auto`, a warning where the checkpoint was named. One that does not say
    what it was trained on is taken as it is.
    """
    if start.data is None or start.data.fingerprint == now.fingerprint:
        return
    changed = (
        f"dataset: {config.dataset.name} holds {now}, but {start.path} was trained on {start.data}"
    )
    if config.resume == "auto":
        raise ConfigError(
            f"{changed}. Give what it held then, or another run.dir; resume={start.path} goes on "
            "with what it holds now"
        )
    log.warning("%s; the run goes on with what it holds now", changed)


def _named(path: Path) -> Path:
    if (path / "shared.pt").is_file():
        return path
    found = checkpoint.newest(path / "checkpoints")
    if found is None:
        raise CheckpointError(f"resume: {path} is neither a checkpoint nor a run that has one")
    return found


def changed_settings(
    old: Mapping[str, Any], new: Mapping[str, Any], path: str = ""
) -> Iterator[str]:
    """A line for every setting that differs between two configs and may not when a run goes on."""
    for key in {**old, **new}:
        where = f"{path}.{key}" if path else key
        if where in FREE:
            continue
        before, now = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from changed_settings(before, now, where)
        elif before != now:
            yield f"{where}: {before!r} in the run, {now!r} now"
