"""From a command line to a checked config, with Hydra's own flags (--cfg, --multirun, ...)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import yaml
from hydra._internal.utils import _run_hydra, get_args_parser
from omegaconf import DictConfig, OmegaConf

from unlabeled.cli.telling import tell
from unlabeled.config.check import build_config, to_data
from unlabeled.config.compose import compose_config, parse_override, sort_overrides
from unlabeled.config.location import config_dir
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.errors import ConfigError, Interrupted, UserError
from unlabeled.launch.torchrun import started_by_torchrun
from unlabeled.registry import load_plugins

T = TypeVar("T")
Complete = Callable[[dict[str, Any]], None]


def run_command(
    name: str,
    schema: type[T],
    argv: Sequence[str],
    launch: Callable[[T], None],
    complete: Complete = lambda data: None,
) -> int:
    """Compose `configs/<name>.yaml` with `argv`, check it against `schema` and launch it.

    complete: may fill in what the command can do without, before the check.
    """
    arguments, start = _take_from(list(argv))
    flags, overrides = _split_flags(arguments)
    if flags and not _shows_job(flags):
        if start is not None:
            raise ConfigError(f"--from: {flags[0]} does not go with it, --cfg job alone does")
        return _hand_to_hydra(name, schema, flags, _launched(overrides), launch, complete)
    if start is not None:
        config = _check(schema, *_from_run(start, overrides), complete)
    else:
        composed = compose_config(name, _launched(overrides))
        config = _check(schema, composed.data, composed.problems, complete)
    if flags:
        print(yaml.safe_dump(to_data(config), sort_keys=False), end="")
    else:
        launch(config)
    return 0


def _launched(overrides: list[str]) -> list[str]:
    """The overrides with the launcher of those who started this process."""
    if started_by_torchrun() and not any(o.startswith("launch=") for o in overrides):
        return ["launch=torchrun", *overrides]
    return overrides


def _check(schema: type[T], data: dict[str, Any], problems: Sequence[str], complete: Complete) -> T:
    if problems and not data:
        raise ConfigError(problems)
    complete(data)
    plugins = data.get("plugins") or []
    load_plugins([str(module) for module in plugins] if isinstance(plugins, list) else [])
    return build_config(schema, data, problems)


def _take_from(arguments: list[str]) -> tuple[list[str], Path | None]:
    """Take `--from RUN` out of the arguments."""
    if "--from" not in arguments:
        return arguments, None
    at = arguments.index("--from")
    if at + 1 == len(arguments):
        raise ConfigError("--from: give the run to repeat, e.g. `--from runs/my_run`")
    return arguments[:at] + arguments[at + 2 :], Path(arguments[at + 1])


def _from_run(start: Path, overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The config of a run, in a new run directory, with values (not choices) overridden."""
    data, problems = RunDirectory(start).read_config(), []
    data["run"] = {"dir": f"{Path(data['run']['dir'])}-{datetime.now():%Y%m%d-%H%M%S}"}
    data["resume"] = "auto"
    if started_by_torchrun():
        data["launch"] = {"name": "torchrun"}
    tree = OmegaConf.create(data)
    for text in overrides:
        parsed = parse_override(text)
        if isinstance(parsed, str):
            problems.append(parsed)
        elif isinstance(OmegaConf.select(tree, parsed.key_or_group), DictConfig):
            problems.append(
                f"{text}: with --from, give values such as {parsed.key_or_group}.name=..."
            )
        else:
            OmegaConf.update(tree, parsed.key_or_group, parsed.value(), force_add=True)
    container = OmegaConf.to_container(tree)
    assert isinstance(container, dict)
    return {str(k): v for k, v in container.items()}, problems


def _shows_job(flags: Sequence[str]) -> bool:
    """Whether `--cfg job` was asked for; what else `--cfg` shows is Hydra's own."""
    shown = get_args_parser().parse_args(list(flags))
    return bool(shown.cfg == "job" and not shown.package)


def _split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags that Hydra understands, and overrides; an unknown flag is a ConfigError."""
    parser = get_args_parser()
    known = {option: action for action in parser._actions for option in action.option_strings}
    flags: list[str] = []
    overrides: list[str] = []
    pending = list(arguments)
    while pending:
        item = pending.pop(0)
        option = item.split("=", 1)[0]
        if not item.startswith("-"):
            overrides.append(item)
        elif option not in known:
            raise ConfigError(f"{item}: unknown flag; settings are given as key=value, see --help")
        else:
            flags.append(item)
            if known[option].nargs != 0 and "=" not in item and pending and "=" not in pending[0]:
                flags.append(pending.pop(0))
    return flags, overrides


def _hand_to_hydra(
    name: str,
    schema: type[T],
    flags: list[str],
    overrides: list[str],
    launch: Callable[[T], None],
    complete: Complete,
) -> int:
    """Multi-runs, tab completion, help: Hydra does them; every job is checked as usual.

    A job that cannot begin, or is interrupted, ends the sweep; one that fails is told, the others
    go on, and its status is returned.
    """
    sorted_out = sort_overrides(overrides, [config_dir(), *_own_folders(flags)])
    if sorted_out.problems:
        raise ConfigError(sorted_out.problems)
    asked = sorted_out.all
    sweeps = "--multirun" in flags or "-m" in flags
    if sweeps and not any(value.key_or_group == "run.dir" for value in sorted_out.values):
        folder = f"runs/multirun-{datetime.now():%Y%m%d-%H%M%S}"
        asked.append(f"++run.dir='{folder}/${{hydra:job.num}}'")
        asked.append(f"++hydra.sweep.dir='{folder}'")  # for its multirun.yaml

    failures: list[UserError] = []
    here = os.getpid()

    def job(config: DictConfig) -> None:
        data = OmegaConf.to_container(config, resolve=True)
        assert isinstance(data, dict)
        named = {str(key): value for key, value in data.items()}
        try:
            launch(_check(schema, named | dict.fromkeys(sorted_out.nulls), [], complete))
        except UserError as error:
            if os.getpid() != here:  # a job of its own on a cluster, which has failed
                raise
            if isinstance(error, ConfigError | Interrupted):
                raise _EndOfSweep(error) from error
            failures.append(error)
            tell(error)

    parser = get_args_parser()
    args = parser.parse_args([*flags, *asked])
    try:
        _run_hydra(
            args=args,
            args_parser=parser,
            task_function=job,
            config_path=str(config_dir()),
            config_name=name,
        )
    except _EndOfSweep as end:
        raise end.error from None
    return failures[0].exit_status if failures else 0


class _EndOfSweep(BaseException):
    """Passes Hydra, which takes every Exception of a job for its own and goes on."""

    def __init__(self, error: UserError) -> None:
        super().__init__(error)
        self.error = error


def _own_folders(flags: Sequence[str]) -> list[Path]:
    """Folders of the user's own YAML, given with --config-dir (or -cd)."""
    following = dict(pairwise(flags))
    named = [following[flag] for flag in ("--config-dir", "-cd") if flag in following]
    return [Path(f) for f in (*named, *(f.partition("=")[2] for f in flags if "-dir=" in f))]
