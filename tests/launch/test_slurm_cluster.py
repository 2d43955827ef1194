"""Jobs on a real SLURM: submitted, described, ended, cancelled, continued, and many at once."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from tests_support.command import ROOT, unlabeled
from tests_support.same_run import assert_same_run
from tests_support.slurm import (
    LOST_NODES,
    SMALL,
    SOON,
    STEPS,
    TWO,
    SubmittedJob,
    processes_of,
    slurm,
    submit,
    until,
)
from unlabeled.engine.run_directory import RunDirectory

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("cluster"),
]


def test_the_end_of_its_time_is_not_the_end_of_a_run(tmp_path: Path) -> None:
    """SLURM may send the signal a minute early: here about a minute after the start."""
    limit = ("launch.minutes=2", "launch.signal_seconds=60")
    slow = "+hooks.slow={name: slow_steps, steps: 10000, seconds: 1}"
    plugin = "plugins=[tests_support.slow_hook]"
    job = submit(tmp_path / "run", "epochs=100", plugin, slow, *limit)
    until(lambda: job.restarts() != [], 200, "a signal")
    until(lambda: job.state() != "RUNNING", 30, "requeued")
    assert job.restarts()[0].startswith("stopped: SIGUSR2 after step ")
    stopped_at = job.steps()
    job.wait("RUNNING")
    job.reaches(stopped_at + 1)
    slurm("scancel", job.id)
    assert "continuing from step" in job.output()


def test_an_error_that_would_come_again_is_not_retried(tmp_path: Path) -> None:
    """Learning rates that make the loss NaN, and images that are not there."""
    nan = submit(tmp_path / "nan", "max_steps=200", "scheduler.lr=1e30")
    patches = ("~dataset.train_per_picture", "~dataset.test_per_picture")
    folder = ("dataset=folder", f"dataset.root={tmp_path}/none")
    missing = submit(tmp_path / "missing", *patches, *folder)
    assert nan.wait() == "FAILED"
    assert missing.wait() == "FAILED"
    assert nan.restarts() == missing.restarts() == []
    assert "unlabeled: " in nan.output()
    assert "Traceback" not in nan.output() + missing.output()
    assert f"{tmp_path}/none" in missing.output()


def test_crashes_are_retried_as_often_as_asked(tmp_path: Path) -> None:
    kill = f"{{name: kill_at_step, steps: [1, 1, 1, 1], memory: '{tmp_path}/deaths'}}"
    job = submit(
        tmp_path / "run",
        "max_steps=20",
        "launch.max_restarts=1",
        "plugins=[tests_support.kill_at_step]",
        f"+hooks.kill={kill}",
    )
    assert job.wait() == "FAILED"
    assert [reason.split(" with")[0] for reason in job.restarts()] == ["crashed"]
    assert (tmp_path / "deaths").read_text() == "xx"
    assert "as it did 1 times before; not started again" in job.output()


def test_one_of_two_jobs_on_a_node_is_cancelled_whole_and_continued(
    tmp_path: Path, alone: Path
) -> None:
    """Both equal a run without SLURM, and say what they are."""
    on_one = ("launch.nodes=1", "launch.tasks_per_node=2", "launch.parameters={nodelist: node1}")
    on_one = (*on_one, "transform.backend=auto")
    on_two = ("loader.kind=processes", "launch.parameters={nodelist: 'node[1-2]'}")
    whole, job = submit(tmp_path / "whole", *TWO, *on_one), submit(tmp_path / "run", *TWO, *on_two)
    job.reaches(SOON)
    _cancelled(job, tmp_path)
    again = unlabeled("jobs", "resubmit", str(job.run), cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    second = SubmittedJob(again.stdout.split("job ")[1].split()[0], job.run)
    assert second.id != job.id
    for each in (whole, second):
        assert each.wait() == "COMPLETED", each.output()
        assert each.restarts() == []
        assert_same_run(each.run, alone, STEPS)
    meetings = [f for each in (whole, job) for f in each.run.glob(f"job/{each.id}.*.rendezvous")]
    assert len(meetings) == len({file.read_text() for file in meetings}) == 2
    record = json.loads((whole.run / "job" / "job.json").read_text())
    assert (record["launcher"], record["cluster"]) == ("slurm", "slurm")
    assert "launch.tasks_per_node=2" in record["command"]
    assert record["packages"]["torch"]
    asked = (whole.run / "job" / "config.yaml").read_text()
    assert asked == (whole.run / "config.yaml").read_text()


def _cancelled(job: SubmittedJob, cwd: Path) -> None:
    assert len(processes_of(job.run)) >= 2
    cancelled = unlabeled("jobs", "cancel", str(job.run), cwd=cwd)
    assert cancelled.returncode == 0, cancelled.stderr
    job.wait("CANCELLED")
    until(lambda: not processes_of(job.run), 60, "all processes gone")
    time.sleep(5)
    assert job.state() == "CANCELLED"
    assert job.restarts() == []
    listed = json.loads(unlabeled("jobs", "--json", str(job.run), cwd=cwd).stdout)
    assert listed[0]["state"] == "stopped"


def test_the_code_is_that_of_the_submission(tmp_path: Path) -> None:
    """A plugin is edited while the job is held in the queue."""
    plugin = tmp_path / "my_hook.py"
    text = (Path(__file__).parents[1] / "tests_support" / "kill_at_step.py").read_text()
    plugin.write_text(text.replace("os.kill(os.getpid(), signal.SIGKILL)", "print('THE OLD ONE')"))
    choices = [
        *SMALL,
        f"run.dir={tmp_path / 'run'}",
        "max_steps=3",
        "plugins=[my_hook]",
        f"+hooks.mine={{name: kill_at_step, steps: [2], memory: '{tmp_path}/memory'}}",
        "launch=slurm",
        "launch.sbatch={hold: true}",
        f"launch.parameters={{exclude: '{LOST_NODES}'}}",
    ]
    path = os.pathsep.join([str(tmp_path), str(ROOT / "platform")])
    done = unlabeled("pretrain", *choices, cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    job = SubmittedJob(done.stdout.split("job ")[1].split()[0], tmp_path / "run")
    plugin.write_text("raise RuntimeError('the edited one')")
    slurm("scontrol", "release", job.id)
    assert job.wait() == "COMPLETED", job.output()
    assert "THE OLD ONE" in job.output()


def test_an_evaluation_is_a_job_too(tmp_path: Path, alone: Path) -> None:
    folder = tmp_path / "job"
    where = (f"weights={alone}", f"out={tmp_path}/knn.json", f"launch.folder={folder}")
    job = submit(
        tmp_path,
        "benchmark=knn",
        *where,
        "launch.tasks_per_node=2",
        "threads=1",
        command="evaluate",
    )
    assert job.wait() == "COMPLETED", job.output()
    result = json.loads((tmp_path / "knn.json").read_text())
    assert result["benchmark"] == "knn"


def test_a_suite_goes_on_behind_what_it_has_measured(tmp_path: Path, alone: Path) -> None:
    results = tmp_path / "results"
    job = submit(
        tmp_path,
        f"weights={alone}",
        f"out={results}",
        f"launch.folder={tmp_path / 'job'}",
        "launch.max_restarts=0",
        "threads=1",
        "suite.parts.linear.benchmark.epochs=3000",
        command="suite",
    )
    until(lambda: (results / "knn.json").exists(), 120, f"k-NN\n{job.output()}")
    slurm("scancel", "--signal=USR2", job.id)
    until(lambda: job.state() != "RUNNING", 90, "requeued")
    assert job.wait() == "COMPLETED", job.output()
    assert job.restarts() == ["stopped: SIGUSR2"]
    assert "knn: measured already" in job.output()
    assert {path.stem for path in results.glob("*.json")} == {"knn", "linear"}


def test_the_shell_script_stops_and_continues_as_well(tmp_path: Path, alone: Path) -> None:
    command = tmp_path / "unlabeled"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m unlabeled "$@"\n')
    command.chmod(0o755)
    paths = f"PYTHONPATH={ROOT / 'platform'},UNLABELED={command}"
    small = [choice for choice in SMALL if not choice.startswith("launch.")]
    (tmp_path / "run" / "job").mkdir(parents=True)
    output = f"--output={tmp_path}/run/job/%j_0_log.out"
    asked = ["--nodes=2", "--ntasks-per-node=1", "--parsable", output, f"--export=ALL,{paths}"]
    asked.append(f"--exclude={LOST_NODES}")
    run = [*small, f"run.dir={tmp_path / 'run'}", f"max_steps={STEPS}"]
    script_file = str(ROOT / "dev" / "launch_slurm.sh")
    job = SubmittedJob(slurm("sbatch", *asked, script_file, *run).strip(), tmp_path / "run")
    job.reaches(SOON)
    slurm("scancel", "--signal=USR2", job.id)
    until(lambda: job.state() != "RUNNING", 60, "requeued")
    assert job.wait() == "COMPLETED", job.output()
    assert "continuing from step" in job.output()
    assert_same_run(job.run, alone, STEPS)


def test_a_sweep_is_one_job_array(tmp_path: Path) -> None:
    small = [choice for choice in SMALL if not choice.startswith("launch.")]
    launcher = ["hydra/launcher=submitit_slurm", "hydra.launcher.tasks_per_node=1"]
    launcher.append(f"+hydra.launcher.additional_parameters={{exclude: '{LOST_NODES}'}}")
    sweep = ["--multirun", *launcher, "seed=0,1", *small, "max_steps=5"]
    done = unlabeled("pretrain", *sweep, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").glob("multirun-*")
    losses_of = [list(RunDirectory(folder / name).metrics()) for name in ("0", "1")]
    assert [len([r for r in rs if r["phase"] == "train"]) for rs in losses_of] == [5, 5]
    assert losses_of[0] != losses_of[1]
    arrays = [path.name.split("_") for path in (folder / ".submitit").glob("[0-9]*_*")]
    assert len({name for name, _ in arrays}) == 1
    assert sorted(number for _, number in arrays) == ["0", "1"]
