"""A real SLURM for the tests, and jobs on it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from tests_support.command import ROOT, unlabeled

SCRIPT = ROOT / "dev" / "slurm_cluster.sh"
SMALL = [
    "dataset=photo_patches",
    "dataset.train_per_picture=50",
    "dataset.test_per_picture=10",
    "method=swav",
    "batch_size=40",
    "transform.backend=reference",  # to load the kernels takes longer than its few steps
    "backbone.width=0.125",
    "threads=1",
    "hooks.knn_probe=null",
    "hooks.comparison_table=null",
    "checkpoint.every_epochs=null",
    "checkpoint.every_steps=25",
    "launch.minutes=30",
]
"""Real photographs and a small network: a step takes some ten milliseconds, a start ten seconds."""
STEPS = 120
TWO = (
    *("launch.nodes=2", f"max_steps={STEPS}", "plugins=[tests_support.slow_hook]"),
    "+hooks.slow={name: slow_steps, steps: 10000, seconds: 0.03}",
)
"""A run that is still under way when a test has seen a step of it and acts."""
QUIET_NODES, LOST_NODES = "node[1-4]", "node[5-8]"
"""Two files of tests use the cluster at the same time; one takes nodes away from their jobs."""
SOON = 30
"""Steps after which something happens to a run: behind a checkpoint, long before its end."""
SESSION = "UNLABELED_TESTS_SESSION"
"""In the environment: the process that began the session of tests, and started its workers."""


def script(action: str) -> subprocess.CompletedProcess[str]:
    """`dev/slurm_cluster.sh ACTION`."""
    return subprocess.run(
        ["bash", str(SCRIPT), action], capture_output=True, text=True, timeout=500
    )


def start() -> str | None:
    """Have a cluster that is up, whichever process of the session asks first; or why there is none.

    One that was up already is used, and left alone by `stop`.
    """
    with _started_here().with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if script("status").returncode == 0:
            return None
        started = script("up")
        if started.returncode != 0:
            return started.stderr.strip().splitlines()[-1]
        _started_here().touch()
        return None


def stop() -> None:
    """Stop the cluster if this session started it, which is over."""
    here = _started_here()
    if here.exists():
        assert script("down").returncode == 0
        here.unlink()
    here.with_suffix(".lock").unlink(missing_ok=True)


def _started_here() -> Path:
    """A file that is there while a cluster runs that this session started."""
    return Path(tempfile.gettempdir(), f"unlabeled-slurm-of-tests-{os.environ[SESSION]}")


def configuration() -> str:
    """What SLURM_CONF has to be for SLURM's commands to find the cluster."""
    return script("env").stdout.split("=", 1)[1].strip()


def slurm(*command: str) -> str:
    """What a command of SLURM prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def until(reached: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something to happen."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.5)


@dataclass(frozen=True)
class SubmittedJob:
    """A job of `unlabeled pretrain` or `evaluate`."""

    id: str
    run: Path

    def shown(self) -> dict[str, str]:
        """What SLURM says of it: JobState, Reason, StartTime, ..."""
        words = slurm("scontrol", "show", "job", "--oneliner", self.id).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def state(self) -> str:
        """PENDING, RUNNING, COMPLETED, FAILED, ..."""
        return self.shown()["JobState"]

    def nodes(self) -> list[str]:
        """The names of the nodes that it runs on."""
        short = slurm("squeue", "--noheader", "--jobs", self.id, "--format=%N").strip()
        return slurm("scontrol", "show", "hostnames", short).split()

    def reaches(self, step: int) -> None:
        """Wait until it has done this many steps."""

        def reached() -> bool:
            if self.steps() < step:
                self.hasten(self.shown())
            return self.steps() >= step

        until(reached, 120, f"step {step}\n{self.output()}")

    def hasten(self, shown: dict[str, str]) -> None:
        """SLURM makes a requeued job wait for two minutes; the tests wait a few seconds.

        Not less: a node that has not done with a job refuses it, and it waits once more.
        """
        if shown["Reason"] != "BeginTime" or shown["StartTime"] == "Unknown":
            return
        soon = datetime.now() + timedelta(seconds=10)
        if datetime.fromisoformat(shown["StartTime"]) > soon:
            start = ["scontrol", "update", f"JobId={self.id}", "StartTime=now+4seconds"]
            subprocess.run(start, capture_output=True, timeout=60)

    def steps(self) -> int:
        """Steps whose line is written."""
        file = self.run / "metrics.jsonl"
        return file.read_bytes().count(b'"phase": "train"') if file.exists() else 0

    def wait(self, *states: str, seconds: float = 240) -> str:
        """The state once it is one of these (by default: an end)."""
        ends = states or ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

        def ended() -> bool:
            shown = self.shown()
            self.hasten(shown)
            return shown["JobState"] in ends

        until(ended, seconds, f"job {self.id} is {self.state()}, wanted {ends}\n{self.output()}")
        return self.state()

    def output(self) -> str:
        """Everything that the job's processes and its script printed."""
        files = sorted((self.run / "job").glob(f"{self.id}_*_log.*"))
        return "\n".join(f"{file.name}:\n{file.read_text()[-3000:]}" for file in files)

    def restarts(self) -> list[str]:
        """The reasons of its restarts."""
        file = self.run / "job" / "restarts.txt"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line.partition(" ")[2] for line in lines]


def submit(
    run: Path, *arguments: str, command: str = "pretrain", exclude: str = LOST_NODES
) -> SubmittedJob:
    """Submit a small run, as a person would."""
    where = [f"run.dir={run}"] if command == "pretrain" else []
    where.append(f"launch.parameters={{exclude: '{exclude}'}}")
    choices = [*(SMALL if command == "pretrain" else []), *where, *arguments]
    done = unlabeled(command, *choices, "launch=slurm", cwd=run.parent)
    assert done.returncode == 0, done.stderr
    return SubmittedJob(done.stdout.split("job ")[1].split()[0], run)


def processes_of(run: Path) -> list[int]:
    """Processes on this machine whose command or environment names a run's folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
        except OSError:
            continue
        if str(run).encode() in text and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found
