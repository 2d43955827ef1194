"""Whatever happens to a job on SLURM, it ends with the bits of a run that was left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from tests_support.same_run import assert_same_run, losses
from tests_support.slurm import (
    QUIET_NODES,
    SOON,
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
submit_here = partial(submit, exclude=QUIET_NODES)


def test_preempted_ten_times_equals_never(tmp_path: Path, alone: Path) -> None:
    """At random moments, by the signals of a scheduler, to one node, to all, or twice."""
    draw = random.Random(4)
    job = submit_here(tmp_path / "run", *TWO, "launch.max_restarts=0")
    for _ in range(10):
        job.wait("RUNNING")
        if draw.random() < 0.8:
            before = job.steps()
            job.reaches(min(before + draw.randrange(1, 15), STEPS - 50))
        else:
            time.sleep(draw.uniform(0, 8))  # perhaps before its first step
        name = draw.choice(["USR2", "TERM"])
        for _ in range(draw.choice([1, 1, 2])):
            slurm("scancel", f"--signal={name}", job.id)
        until(lambda: job.state() != "RUNNING", 90, f"requeued\n{job.output()}")
    assert job.wait() == "COMPLETED", job.output()
    assert len(job.restarts()) == 10
    assert not any("crashed" in reason for reason in job.restarts())
    assert_same_run(job.run, alone, STEPS)


def test_an_urgent_job_a_killed_rank_and_a_lost_node_cost_no_step(
    tmp_path: Path, alone: Path
) -> None:
    job = submit_here(tmp_path / "run", *TWO, "launch.max_restarts=1")
    job.reaches(SOON)
    _give_way_to_an_urgent_job(job)
    job.wait("RUNNING")
    job.reaches(2 * SOON)
    _kill_a_rank(job)
    job.wait("RUNNING")
    job.reaches(3 * SOON)
    node = job.nodes()[1]
    slurm("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    try:
        until(lambda: job.state() != "RUNNING", 60, "taken from the lost node")
        assert job.wait() == "COMPLETED", job.output()
    finally:  # unless it has returned by itself
        subprocess.run(["scontrol", "update", f"NodeName={node}", "State=RESUME"], check=False)
    crashed = [reason.startswith("crashed with status ") for reason in job.restarts()]
    assert crashed == [False, True, False], job.restarts()
    assert_same_run(job.run, alone, STEPS)


def _give_way_to_an_urgent_job(job: SubmittedJob) -> None:
    nodes = f"--nodelist={','.join(job.nodes())}"
    urgent = ["--partition=urgent", "--exclusive", nodes, "--output=/dev/null"]
    slurm("sbatch", *urgent, "--wrap=sleep 3")
    until(lambda: job.state() != "RUNNING", 90, "preempted")


def _kill_a_rank(job: SubmittedJob) -> None:
    ranks = [pid for pid in processes_of(job.run) if _procid(pid) == "1" and _is_task(pid)]
    assert ranks
    os.kill(ranks[0], signal.SIGKILL)
    until(lambda: job.state() != "RUNNING", 90, f"requeued\n{job.output()}")


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
