"""Whatever happens to a job on SLURM, it ends with the bits of a run that was left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests_support.same_run import assert_same_run, losses
from tests_support.slurm import (
    QUIET_NODES,
    STEPS,
    TWO,
    SubmittedJob,
    processes_of,
    slurm,
    submit,
    until,
)

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("cluster"),
]
PREEMPTIONS = 10
URGENT = 6
"""Which of them is by a job of a partition that goes first; the others are signals."""
SLOWER = "+hooks.slow={name: slow_steps, steps: 10000, seconds: 0.2}"
"""So that all that happens to a run happens before its end."""
submit_here = partial(submit, exclude=QUIET_NODES)


def test_preempted_ten_times_killed_and_robbed_of_a_node_equals_never(
    tmp_path: Path, alone: Path
) -> None:
    """At random moments; one crash is allowed, and preemptions and lost nodes are none."""
    draw = random.Random(4)
    job = submit_here(tmp_path / "run", *TWO, SLOWER, "launch.max_restarts=1")
    for number in range(PREEMPTIONS):
        job.wait("RUNNING")
        if draw.random() < 0.8:
            job.reaches(job.steps() + draw.randrange(1, 8))
        else:
            time.sleep(draw.uniform(0, 8))  # perhaps before its first step
            job.wait("RUNNING")
        if number == URGENT:
            _give_way_to_an_urgent_job(job)
        else:
            _signal(job, draw)
    _begins_again(job)
    _kill_a_rank(job)
    _begins_again(job)
    with _lost(job.nodes()[1]):
        until(lambda: job.state() != "RUNNING", 60, "taken from the lost node")
        assert job.wait() == "COMPLETED", job.output()
    crashed = [reason.startswith("crashed with status ") for reason in job.restarts()]
    assert crashed == [False] * PREEMPTIONS + [True, False], job.restarts()
    assert_same_run(job.run, alone, STEPS)


def _begins_again(job: SubmittedJob) -> None:
    job.wait("RUNNING")
    job.reaches(job.steps() + 1)


def _signal(job: SubmittedJob, draw: random.Random) -> None:
    """As schedulers do before they take nodes away: once or twice, to every process."""
    name = draw.choice(["USR2", "TERM"])
    for _ in range(draw.choice([1, 1, 2])):
        slurm("scancel", f"--signal={name}", job.id)
    until(lambda: job.state() != "RUNNING", 90, f"requeued\n{job.output()}")


def _give_way_to_an_urgent_job(job: SubmittedJob) -> None:
    nodes = f"--nodelist={','.join(job.nodes())}"
    urgent = ["--partition=urgent", "--exclusive", nodes, "--output=/dev/null"]
    slurm("sbatch", "--wait", *urgent, "--wrap=sleep 3")
    until(lambda: job.state() != "RUNNING", 90, "preempted")


def _kill_a_rank(job: SubmittedJob) -> None:
    ranks = [pid for pid in processes_of(job.run) if _procid(pid) == "1" and _is_task(pid)]
    assert ranks
    os.kill(ranks[0], signal.SIGKILL)
    until(lambda: job.state() != "RUNNING", 90, f"requeued\n{job.output()}")


@contextmanager
def _lost(node: str) -> Iterator[None]:
    slurm("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    try:
        yield
    finally:  # unless it has returned by itself
        subprocess.run(["scontrol", "update", f"NodeName={node}", "State=RESUME"], check=False)


def _procid(pid: int) -> str | None:
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((v[13:].decode() for v in variables if v.startswith(b"SLURM_PROCID=")), None)


def _is_task(pid: int) -> bool:
    return b"submitit" in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_another_number_of_nodes_continues(tmp_path: Path, alone: Path) -> None:
    """2 -> 1 -> 2 nodes: the bits of two nodes as long as there are two, then all but the last."""
    for nodes, until_step in ((2, 40), (1, 80), (2, STEPS)):
        job = submit_here(tmp_path / "run", f"launch.nodes={nodes}", f"max_steps={until_step}")
        assert job.wait() == "COMPLETED", job.output()
    text = (tmp_path / "run" / "log.txt").read_text()
    assert "launch.processes: 2 when it was written, 1 now" in text
    assert "launch.processes: 1 when it was written, 2 now" in text
    found, wanted = losses(tmp_path / "run"), losses(alone)
    assert set(found) == set(range(1, STEPS + 1))
    assert all(found[step] == wanted[step] for step in range(1, 41))
    assert all(abs(found[step] - wanted[step]) < 1e-3 for step in range(41, 44))
