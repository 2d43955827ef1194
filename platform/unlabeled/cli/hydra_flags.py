"""From a command line to a checked config, with Hydra's own flags (--cfg, --multirun, ...)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import yaml
from hydra._internal.utils import _run_hydra, get_args_parser
from omegaconf import DictConfig, OmegaConf

from unlabeled.config.check import build_config, to_data
from unlabeled.config.compose import compose_config, parse_override, sort_overrides
from unlabeled.config.location import config_dir
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.errors import ConfigError
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
    if started_by_torchrun() and not any(o.startswith("launch=") for o in overrides):
        overrides.insert(0, "launch=torchrun")
    if start is not None:
        launch(_check(schema, *_from_run(start, overrides), complete))
    elif _shows_job(flags):
        config = _composed(name, schema, overrides, complete)
        print(yaml.safe_dump(to_data(config), sort_keys=False), end="")
    elif flags:
        _hand_to_hydra(name, schema, flags, overrides, launch, complete)
    else:
        launch(_composed(name, schema, overrides, complete))
    return 0


def _composed(name: str, schema: type[T], overrides: Sequence[str], complete: Complete) -> T:
    composed = compose_config(name, overrides)
    return _check(schema, composed.data, composed.problems, complete)


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
) -> None:
    """Multi-runs, tab completion, help: Hydra does them; every job is checked as usual."""
    sorted_out = sort_overrides(overrides, [config_dir(), *_own_folders(flags)])
    if sorted_out.problems:
        raise ConfigError(sorted_out.problems)
    sweeps = "--multirun" in flags or "-m" in flags
    if sweeps and not any(o.lstrip("+").startswith("run.dir=") for o in sorted_out.values):
        folder = f"runs/multirun-{datetime.now():%Y%m%d-%H%M%S}"
        sorted_out.values.append(f"++run.dir='{folder}/${{hydra:job.num}}'")
        sorted_out.values.append(f"++hydra.sweep.dir='{folder}'")  # for its multirun.yaml

    def job(config: DictConfig) -> None:
        data = OmegaConf.to_container(config, resolve=True)
        assert isinstance(data, dict)
        launch(_check(schema, {str(k): v for k, v in data.items()}, [], complete))

    parser = get_args_parser()
    args = parser.parse_args([*flags, *sorted_out.all])
    _run_hydra(
        args=args,
        args_parser=parser,
        task_function=job,
        config_path=str(config_dir()),
        config_name=name,
    )


def _own_folders(flags: Sequence[str]) -> list[Path]:
    """Folders of the user's own YAML, given with --config-dir (or -cd)."""
    following = dict(pairwise(flags))
    named = [following[flag] for flag in ("--config-dir", "-cd") if flag in following]
    return [Path(f) for f in (*named, *(f.partition("=")[2] for f in flags if "-dir=" in f))]
