"""What is asked of a scheduler, checked without one; and a job of submitit's local executor."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests_support.command import TINY, unlabeled
from tests_support.in_process import tiny_config
from tests_support.same_run import assert_same_run
from unlabeled.config.check import build_config
from unlabeled.engine.pretrain import pretrain
from unlabeled.errors import ConfigError, EnvironmentProblem
from unlabeled.launch.requeue import NEVER_BEGUN, lines_after, lines_before
from unlabeled.launch.slurm import Slurm

GOLDEN = Path(__file__).with_name("submission.sh")


def settings(**values: Any) -> Slurm.Config:
    return build_config(Slurm.Config, values)


def test_processes_follow_from_nodes_and_gpus() -> None:
    assert settings(nodes=4, gpus_per_node=8).processes == 32
    assert settings(nodes=4).processes == 4
    assert settings(nodes=2, gpus_per_node=8, tasks_per_node=3).processes == 6


def test_the_batch_must_divide_among_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch_size: 12 does not divide by 5 processes"):
        tiny_config(tmp_path, "launch=slurm", "launch.nodes=5")


def test_parameters_that_submitit_does_not_know_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        settings(parameters={"nodelist": "node1", "partion": "main"})
    (problem,) = caught.value.problems
    assert problem.startswith("parameters.partion: unknown to submitit. Known: ")
    for known in ("nodelist", "exclude", "dependency", "mail_user"):
        assert known in problem


def test_what_has_a_field_is_not_given_twice() -> None:
    with pytest.raises(ConfigError, match=r"parameters\.partition: has a field of its own"):
        settings(parameters={"partition": "main"})


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("nodes", 0, "positive"),
        ("minutes", -1, "positive"),
        ("mem_gb", 0.0, "positive"),
        ("max_restarts", -1, "0 or more"),
        ("signal_seconds", -5, "0 or more"),
    ],
)
def test_numbers_out_of_range_are_refused(field: str, value: float, wanted: str) -> None:
    with pytest.raises(ConfigError, match=f"{field}: must be {wanted}, got {value}"):
        settings(**{field: value})


def test_one_machine_is_one_node() -> None:
    with pytest.raises(ConfigError, match=r"nodes: 2, but launch.cluster=local is one machine"):
        settings(cluster="local", nodes=2)


def test_a_signal_that_the_run_would_die_of_is_refused(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, "launch=slurm", "launch.signal=SIGUSR1")
    with pytest.raises(ConfigError, match=r"launch\.signal: SIGUSR1 is not among checkpoint\.on_s"):
        config.launch.build().run(pretrain, config)


def test_a_machine_without_slurm_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    config = tiny_config(tmp_path / "run", "launch=slurm")
    with pytest.raises(EnvironmentProblem, match=r"there is no sbatch on this machine; submit"):
        config.launch.build().run(pretrain, config)
    assert not (tmp_path / "run").exists()


def test_the_submission_is_the_one_that_was_read_and_approved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person read the file beside this test; changes are made on purpose, by hand."""
    launcher = Slurm(
        settings(
            nodes=8,
            gpus_per_node=8,
            cpus_per_task=10,
            mem_gb=480,
            minutes=4320,
            partition="vision",
            qos="high",
            account="lab",
            constraint="a100",
            comment="CVPR",
            parameters={"exclude": "node7"},
            sbatch={"reservation": "week 12"},
            srun_args=["--container-image=/images/torch.sqsh"],
            setup=["module load cuda"],
            signal_seconds=300,
        )
    )
    if shutil.which("srun") is None:  # submitit only looks whether there is one
        srun = tmp_path / "srun"
        srun.touch()
        srun.chmod(srun.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    executor = launcher.executor(Path("/runs/a/job"), Path("/runs/a/job/code/1"))._executor
    text = executor._make_submission_file_text("python -m submitit.core._submit", "1")
    assert text.strip() == GOLDEN.read_text().strip()


def test_the_lines_around_a_job_are_shell(tmp_path: Path) -> None:
    lines = [*lines_before(tmp_path / "a 'folder'"), "true", *lines_after(3)]
    checked = subprocess.run(["bash", "-n"], input="\n".join(lines), text=True, check=False)
    assert checked.returncode == 0


def test_a_run_may_be_called_crashed(tmp_path: Path) -> None:
    """Reasons name the run's checkpoint; only crashes count among the restarts."""
    saved = "stopped by SIGTERM at step 9 (runs/crashed again/checkpoints/00000009)"
    restarts = tmp_path / "restarts.txt"
    restarts.write_text(f"2026-01-01T00:00:00Z {saved}\n" * 3)
    for _ in range(2):
        assert "crashed with status 1; back into the queue" in end_of_a_job(tmp_path, 1).stderr
    assert "as it did 2 times before; not started again" in end_of_a_job(tmp_path, 1).stderr


def test_what_never_begins_is_not_started_for_ever(tmp_path: Path) -> None:
    """A rank that is killed while it imports ends the others by SIGTERM, as a scheduler does."""
    restarts = tmp_path / "restarts.txt"
    for _ in range(NEVER_BEGUN):
        ended = end_of_a_job(tmp_path, 143)
        assert (ended.returncode, "back into the queue" in ended.stderr) == (0, True)
    ended = end_of_a_job(tmp_path, 143)
    assert ended.returncode == 143
    assert "ended by a signal 11 times in a row before it had begun; not started" in ended.stderr
    assert len(restarts.read_text().splitlines()) == NEVER_BEGUN
    with restarts.open("a") as lines:
        lines.write(
            "2026-01-01T00:00:00Z stopped: SIGTERM after step 9, which a checkpoint holds\n"
        )
    assert "back into the queue" in end_of_a_job(tmp_path, 143).stderr


def end_of_a_job(folder: Path, status: int) -> subprocess.CompletedProcess[str]:
    """What the lines behind `srun` do when it ends with this status and its ranks said nothing."""
    around = f"""
        squeue() {{ echo RUNNING; }}; scontrol() {{ true; }}; SLURM_JOB_ID=1 ends=0
        restarts={folder}/restarts.txt outcome_file={folder}/none; touch $restarts
    """
    script = "\n".join([around, f"(exit {status})", *lines_after(max_restarts=2)])
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_on_this_machine_is_started_again_at_the_end_of_its_time(tmp_path: Path) -> None:
    """submitit's local executor: two tasks, and a minute of which 15 seconds are grace."""
    common = ["pretrain", *TINY, "epochs=100", "max_steps=40", "transform.backend=reference"]
    alone = unlabeled(*common, f"run.dir={tmp_path}/alone", "launch.processes=2", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    job = ["launch=slurm", "launch.cluster=local", "launch.tasks_per_node=2", "launch.minutes=1"]
    longer_than_that = "name: slow_steps, steps: 10, seconds: 5"
    slow = ["plugins=[tests_support.slow_hook]", f"+hooks.slow={{{longer_than_that}}}"]
    run = tmp_path / "run"
    grace = "launch.signal_seconds=15"
    submitted = unlabeled(*common, *job, *slow, grace, f"run.dir={run}", cwd=tmp_path)
    assert submitted.returncode == 0, submitted.stderr
    record = json.loads((run / "job" / "job.json").read_text())
    assert (record["cluster"], record["folder"]) == ("local", str(tmp_path))
    outcome = run / "job" / f"{record['id']}.outcome"
    deadline = time.monotonic() + 400
    while not (outcome.exists() and outcome.read_text().startswith("finished")):
        output = "".join(file.read_text() for file in (run / "job").glob("*_log.*"))
        assert time.monotonic() < deadline, output
        time.sleep(0.5)
    assert "continuing from step" in (run / "log.txt").read_text()
    assert_same_run(run, tmp_path / "alone", 40)
