"""A run directory has one writer, which loses it the moment it ends."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests_support.command import PYTHON_PATH, TINY, started, unlabeled
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.engine.run_lock import only_writer
from unlabeled.errors import ConfigError, EnvironmentProblem

HOLD = """
import sys
from unlabeled.engine.run_directory import RunDirectory
from unlabeled.engine.run_lock import only_writer

with only_writer(RunDirectory(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(run: Path, job: str = "") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the directory."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)],
        env={**os.environ, "PYTHONPATH": PYTHON_PATH, "SLURM_JOB_ID": job},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_who_holds_it_is_named_and_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with held(tmp_path) as process:
        with pytest.raises(ConfigError) as refused, only_writer(run):
            pass
        wanted = f"{tmp_path} is being written by process {process.pid} on {platform.node()}; "
        assert wanted in str(refused.value)
        process.kill()
        process.wait()
        with only_writer(run):
            assert (tmp_path / ".lock").read_text() == f"{platform.node()} {os.getpid()} "


def test_what_a_start_of_the_same_job_left_behind_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that died may hold a lock on a network's file system for ever."""
    with held(tmp_path, job="17"):
        monkeypatch.setenv("SLURM_JOB_ID", "18")
        with (
            pytest.raises(ConfigError, match="is being written"),
            only_writer(RunDirectory(tmp_path)),
        ):
            pass
        monkeypatch.setenv("SLURM_JOB_ID", "17")
        with only_writer(RunDirectory(tmp_path)):
            pass


def test_a_directory_that_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with (
        pytest.raises(EnvironmentProblem, match=r"cannot write .*\.lock: "),
        only_writer(RunDirectory(tmp_path)),
    ):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_the_second_of_two_commands_is_refused_and_changes_nothing(
    processes: int, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = ["pretrain", *TINY, "epochs=1000", "max_steps=4000", "run.dir=run"]
    with started(*command, cwd=tmp_path) as first:
        while not (run / "metrics.jsonl").exists():
            assert first.poll() is None
            time.sleep(0.1)
        status, config = ((run / name).read_bytes() for name in ("status.json", "config.yaml"))
        second = unlabeled(*command, f"launch.processes={processes}", cwd=tmp_path)
        assert second.returncode == 2
        assert second.stderr.count("\n") == 1
        assert f"is being written by process {first.pid} on " in second.stderr
        assert first.poll() is None
        assert (run / "status.json").read_bytes() == status
        assert (run / "config.yaml").read_bytes() == config
