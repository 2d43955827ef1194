"""`unlabeled jobs` on runs that train: listed, followed, cancelled, killed and continued."""

from __future__ import annotations

import json
import os
import signal
import statistics
from pathlib import Path

import pytest

from tests_support.command import TINY, started, unlabeled
from tests_support.in_process import tiny_config
from tests_support.listed_runs import only, train_records, wait_for, write_job
from unlabeled.config.check import to_data
from unlabeled.engine.pretrain import pretrain
from unlabeled.engine.process_identity import process_identity
from unlabeled.engine.run_directory import RunDirectory, write_yaml
from unlabeled.engine.run_status import read_status
from unlabeled.errors import Interrupted

ENDLESS = [*TINY, "epochs=100000", "hooks.knn_probe=null", "checkpoint.every_steps=5"]


def status_pid(run: Path) -> int | None:
    status = read_status(RunDirectory(run))
    return status.pid if status else None


@pytest.mark.slow
def test_a_run_is_listed_cancelled_and_continued(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "one"
    with started("pretrain", *ENDLESS, "run.dir=runs/one", cwd=tmp_path) as process:
        wait_for(lambda: len(train_records(run)) >= 12, "twelve steps")

        found = only(tmp_path)
        records = train_records(run)
        assert (found["state"], found["pid"]) == ("running", process.pid)
        assert 12 <= found["step"] <= records[-1]["step"]
        assert found["last_step"] == 400_000
        assert found["log"] == str(run / "log.txt")
        at = found["step"] - 1
        assert (found["loss"], found["epoch"]) == (records[at]["loss"], records[at]["epoch"])
        recent = records[max(0, at - 49) : at + 1]
        seconds = statistics.median(12 / each["img_per_s"] for each in recent)
        assert found["eta_seconds"] == pytest.approx((400_000 - found["step"]) * seconds)

        again = unlabeled("jobs", "resubmit", "one", cwd=tmp_path)
        assert again.returncode == 2
        assert again.stderr == "unlabeled: runs/one: it is running; `unlabeled jobs cancel " \
            "runs/one` stops it\n"  # fmt: skip

        cancelled = unlabeled("jobs", "cancel", "one", cwd=tmp_path)
        assert cancelled.returncode == 0, cancelled.stderr
        assert f"sent SIGTERM to process {process.pid}" in cancelled.stdout
        assert process.wait(timeout=60) == Interrupted.exit_status

    found = only(tmp_path)
    assert (found["state"], found["exit_status"]) == ("stopped", Interrupted.exit_status)
    assert found["eta_seconds"] is None
    assert f"SIGTERM after step {found['step']}" in found["reason"]
    once_more = unlabeled("jobs", "cancel", str(run), cwd=tmp_path)
    assert once_more.returncode == 2
    assert "nothing to cancel, it is " in once_more.stderr
    checkpoint = int((run / "checkpoints" / "last").read_text())
    assert checkpoint == found["step"] == train_records(run)[-1]["step"]

    with started("jobs", "resubmit", "one", cwd=tmp_path) as process:
        wait_for(lambda: status_pid(run) == process.pid, "the second life")
        size = (run / "metrics.jsonl").stat().st_size
        wait_for(lambda: (run / "metrics.jsonl").stat().st_size > size + 2000, "steps of it")
        found = only(tmp_path)
        assert (found["state"], found["pid"]) == ("running", process.pid)
        process.kill()
    found = only(tmp_path)
    assert (found["state"], found["reason"]) == ("lost", f"process {process.pid} is gone")
    *_, last = (run / "metrics.jsonl").read_bytes().rsplit(b"\n", 2)[:-1]
    assert found["step"] == json.loads(last)["step"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["local", "torchrun"])
def test_a_run_of_several_processes_is_cancelled_whole(launcher: str, tmp_path: Path) -> None:
    """By a signal to rank 0 alone, which is a child of the command."""
    run = tmp_path / "runs" / "one"
    command = ["pretrain", *ENDLESS, "run.dir=runs/one"]
    module, arguments = {
        "local": ("unlabeled", [*command, "launch.processes=2"]),
        "torchrun": (
            "torch.distributed.run",
            ["--standalone", "--nproc_per_node=2", "-m", "unlabeled", *command],
        ),
    }[launcher]
    with started(*arguments, cwd=tmp_path, module=module) as process:
        wait_for(lambda: train_records(run), "a step")
        family = descendants(process.pid)
        assert (only(tmp_path)["state"], only(tmp_path)["pid"] in family) == ("running", True)
        cancelled = unlabeled("jobs", "cancel", "one", cwd=tmp_path)
        assert cancelled.returncode == 0, cancelled.stderr
        assert process.wait(timeout=60) != 0
    wait_for(lambda: not any(map(process_identity, family)), "all processes to end", 30)
    assert (only(tmp_path)["state"], only(tmp_path)["exit_status"]) == ("stopped", 7)


def descendants(pid: int) -> set[int]:
    """The processes that this one started, and those that they started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {pid}.union(*(descendants(int(child)) for child in children))


@pytest.mark.slow
def test_a_killed_run_is_continued_to_its_end(tmp_path: Path) -> None:
    """In its own directory and with its own config, from any working directory."""
    hook = f"{{name: kill_at_step, steps: [7], memory: {tmp_path / 'deaths'}}}"
    kill = [
        "plugins=[tests_support.kill_at_step]",
        f"hooks.kill={hook}",
        "checkpoint.every_steps=3",
    ]
    (tmp_path / "elsewhere").mkdir()
    run = tmp_path / "runs" / "one"
    arguments = [
        *TINY,
        "hooks.knn_probe=null",
        *kill,
        "checkpoint.every_steps=3",
        "run.dir=runs/one",
    ]
    assert unlabeled("pretrain", *arguments, cwd=tmp_path).returncode == -signal.SIGKILL
    assert (only(tmp_path)["state"], only(tmp_path)["step"]) == ("lost", 7)
    again = unlabeled("jobs", "resubmit", str(run), cwd=tmp_path / "elsewhere")
    assert again.returncode == 0, again.stderr
    found = only(tmp_path)
    assert (found["state"], found["step"], found["last_step"]) == ("finished", 12, 12)
    log = (run / "log.txt").read_text()
    # That of step 6 may have been on its way to the disk at step 7; the epoch's of step 4 was not.
    assert "continuing from step 6" in log or "continuing from step 4" in log
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.slow
def test_a_submission_goes_before_what_the_run_became(tmp_path: Path) -> None:
    """job/config.yaml may be all there is; relative paths start in the folder of the submission."""
    run, folder = tmp_path / "runs" / "one", tmp_path / "images"
    folder.mkdir()
    config = to_data(tiny_config(run, "hooks.knn_probe=null", "max_steps=2"))
    write_job(run, folder=str(folder))
    write_yaml(run / "job" / "config.yaml", config | {"resume": "never", "run": {"dir": "gone"}})
    result = unlabeled("jobs", "resubmit", "one", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (run / "status.json").exists()
    assert not list(folder.iterdir())
    folder.rmdir()
    result = unlabeled("jobs", "resubmit", "one", cwd=tmp_path)
    assert result.returncode == 5
    assert f"{folder}: the run was submitted from there" in result.stderr


@pytest.mark.slow
def test_a_log_is_followed_to_the_end_of_its_run(tmp_path: Path) -> None:
    short = [*TINY, "epochs=6", "hooks.knn_probe=null"]
    log = tmp_path / "runs" / "one" / "log.txt"
    with started("pretrain", *short, "run.dir=runs/one", cwd=tmp_path):
        wait_for(log.exists, "the log")
        followed = unlabeled("jobs", "tail", "-f", "one", "-n", "0", cwd=tmp_path, timeout=100)
    assert followed.returncode == 0
    assert followed.stderr == "runs/one: finished\n"
    whole = log.read_text().splitlines()
    lines = followed.stdout.splitlines()
    assert lines == whole[len(whole) - len(lines) :]
    assert lines[-1].endswith("done: runs/one")
    end = unlabeled("jobs", "tail", "one", "--lines", "3", cwd=tmp_path)
    assert end.stdout.splitlines() == whole[-3:]


@pytest.mark.slow
def test_following_is_left_with_ctrl_c(tmp_path: Path) -> None:
    assert unlabeled("jobs", "tail", "-f", "one", cwd=tmp_path).returncode == 2
    with started("pretrain", *ENDLESS, "run.dir=runs/one", cwd=tmp_path):
        wait_for((tmp_path / "runs" / "one" / "log.txt").exists, "the log")
        arguments = ["jobs", "tail", "-f", "one"]
        with (tmp_path / "said").open("w+") as output:
            with started(*arguments, cwd=tmp_path, output=output) as following:
                wait_for(lambda: os.fstat(output.fileno()).st_size, "a line")
                following.send_signal(signal.SIGINT)
                assert following.wait(timeout=60) == 130
            assert "unlabeled: interrupted" in (tmp_path / "said").read_text()


@pytest.mark.slow
def test_a_directory_of_real_training_that_nobody_recorded(tmp_path: Path) -> None:
    """From before there was a status.json: what the other files tell is shown."""
    config = tiny_config(tmp_path / "run", "hooks.knn_probe=null", "max_steps=3")
    config.launch.build().run(pretrain, config)
    (tmp_path / "run" / "status.json").unlink()
    found = only(tmp_path)
    assert (found["state"], found["step"], found["last_step"]) == ("unknown", 3, None)
    assert found["loss"] == train_records(tmp_path / "run")[-1]["loss"]


@pytest.mark.slow
def test_a_job_of_submitits_local_cluster_is_cancelled_whole(tmp_path: Path) -> None:
    """Before its run has begun, and while it trains after it was submitted again."""
    run = tmp_path / "runs" / "one"
    launch = ["launch=slurm", "launch.cluster=local", "launch.tasks_per_node=2"]
    # Not captured: the job would keep the pipe open, and with it whoever reads it.
    with started("pretrain", *ENDLESS, *launch, "run.dir=runs/one", cwd=tmp_path) as submission:
        assert submission.wait(timeout=100) == 0
    first = only(tmp_path)["job"]
    wait_for(lambda: len(family_of(first)) >= 4, "its shell, its watcher and two tasks")
    family = family_of(first)
    try:
        assert only(tmp_path)["state"] == "starting"
        assert unlabeled("jobs", "resubmit", "one", cwd=tmp_path).returncode == 2
        cancelled = unlabeled("jobs", "cancel", "one", cwd=tmp_path)
        assert cancelled.returncode == 0, cancelled.stderr
        wait_for(lambda: not any(map(process_identity, family)), "all processes to end", 30)
        found = only(tmp_path)
        assert (found["state"], found["reason"]) == ("stopped", f"job {first} was cancelled")

        with started("jobs", "resubmit", "one", cwd=tmp_path) as submission:
            assert submission.wait(timeout=100) == 0
        second = only(tmp_path)["job"]
        assert second != first
        # Steps alone would not do: the first job may have trained before it was cancelled.
        wait_for(lambda: only(tmp_path)["state"] == "running" and train_records(run), "a step")
        family |= family_of(second)
        cancelled = unlabeled("jobs", "cancel", "one", cwd=tmp_path)
        assert cancelled.returncode == 0, cancelled.stderr
        wait_for(lambda: not any(map(process_identity, family)), "all processes to end", 30)
        assert only(tmp_path)["state"] == "stopped"
    finally:
        for pid in filter(process_identity, family):
            os.kill(pid, signal.SIGKILL)


def family_of(job: str) -> set[int]:
    """All processes of a local job; none once it has ended."""
    return descendants(int(job)) if process_identity(int(job)) else set()
