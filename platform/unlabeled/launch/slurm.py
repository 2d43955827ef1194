"""Jobs of a cluster, or of submitit's imitation of one on this machine."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from unlabeled.config.check import to_data
from unlabeled.config.ranges import at_least, positive
from unlabeled.engine.logs import log_to
from unlabeled.engine.run_directory import write_yaml
from unlabeled.errors import ConfigError, EnvironmentProblem
from unlabeled.launch.base import Job, Launcher
from unlabeled.launch.code_snapshot import snapshot
from unlabeled.launch.requeue import lines_after, lines_before, restarts_file
from unlabeled.launch.scheduled_job import Place, ScheduledJob
from unlabeled.launch.submission import nothing_inherited, write_record
from unlabeled.launch.task import Pickled
from unlabeled.registry import register

log = logging.getLogger(__name__)
SETTLED = frozenset({
    "account", "additional_parameters", "array_parallelism", "comment", "constraint",
    "cpus_per_task", "gpus_per_node", "job_name", "mem", "nodes", "ntasks_per_node", "num_gpus",
    "partition", "qos", "setup", "signal_delay_s", "srun_args", "stderr_to_stdout", "teardown",
    "time", "use_srun",
})  # fmt: skip
"""Parameters of submitit that have a field of their own here, or that this launcher needs."""


@register("launcher", "slurm")
class Slurm(Launcher):
    """Submit a job to SLURM through submitit; the command returns once it is in the queue.

    The job runs a copy of the code as it was at submission. A signal (preemption, the end of its
    time) makes it save and go back into the queue; so does a crash, `max_restarts` times; an error
    that would come again (config, data, NaN) does not. `cluster: local` starts the same job on this
    machine without a scheduler, for trying. gloo on CPUs, nccl on GPUs, one GPU a task.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """What to ask of the scheduler."""

        nodes: int = 1
        """Machines."""
        gpus_per_node: int = 0
        """GPUs of every node; 0 trains on CPUs."""
        tasks_per_node: int | None = None
        """Processes on every node; null: one per GPU, or one where there are no GPUs."""
        cpus_per_task: int | None = None
        """null: the cluster's default."""
        mem_gb: float | None = None
        """Memory of every node; null: the cluster's default."""
        minutes: int = 1440
        """Time until the scheduler ends the job, which then goes back into the queue."""
        partition: str | None = None
        """null: the cluster's default."""
        qos: str | None = None
        """Quality of service; null: the cluster's default."""
        account: str | None = None
        """Who is charged; null: the cluster's default."""
        constraint: str | None = None
        """Features that the nodes must have, e.g. a100|h100."""
        comment: str | None = None
        """Free text; some sites want one to preempt later."""
        job_name: str = "unlabeled"
        """What squeue shows."""
        parameters: dict[str, str | int | float | bool] = field(default_factory=dict)
        """More parameters by submitit's names, e.g. {exclude: node7, exclusive: true}."""
        sbatch: dict[str, str | int | float | bool] = field(default_factory=dict)
        """More options of sbatch by their own names, e.g. {reservation: vision}."""
        srun_args: list[str] = field(default_factory=list)
        """Arguments of srun, e.g. [--container-image=/images/torch.sqsh]."""
        setup: list[str] = field(default_factory=list)
        """Shell commands ahead of srun, e.g. [module load cuda]."""
        signal: str = "SIGUSR2"
        """What the scheduler sends ahead of the end; one of `checkpoint.on_signals`."""
        signal_seconds: int = 120
        """How long ahead. The longest thing between two steps must fit: an evaluation, a step."""
        max_restarts: int = 3
        """How often a crash is retried; signals do not count."""
        timeout_seconds: float = 1800.0
        """A rank that waits longer than this for its peers gives up."""
        connect_seconds: float = 300.0
        """The peers must be found within this time."""
        cluster: Literal["slurm", "local"] = "slurm"
        """local: submitit's own processes on this machine, without a scheduler."""
        folder: str | None = None
        """Where the job's files go; null: job/ of the run directory, or jobs/<time>."""

        @property
        def tasks(self) -> int:
            """Processes on every node."""
            return self.tasks_per_node or max(1, self.gpus_per_node)

        @property
        def processes(self) -> int:
            """Processes that train together."""
            return self.nodes * self.tasks

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges, and parameters that submitit does not know."""
            yield from positive(
                self, "nodes", "tasks_per_node", "cpus_per_task", "mem_gb", "minutes",
                "timeout_seconds", "connect_seconds",
            )  # fmt: skip
            yield from at_least(self, 0, "gpus_per_node", "signal_seconds", "max_restarts")
            if self.cluster == "local" and self.nodes > 1:
                yield "nodes", f"{self.nodes}, but launch.cluster=local is one machine; give 1"
            yield from self._unknown_parameters()

        def _unknown_parameters(self) -> Iterator[tuple[str, str]]:
            if not self.parameters:
                return
            from submitit.slurm.slurm import SlurmExecutor

            known = sorted(SlurmExecutor._valid_parameters() - SETTLED)
            for name in self.parameters:
                if name in SETTLED:
                    yield f"parameters.{name}", "has a field of its own; see show launcher slurm"
                elif name not in known:
                    yield f"parameters.{name}", f"unknown to submitit. Known: {', '.join(known)}"

    def run(self, job: Job, config: Any) -> None:
        """Submit, and say where to look."""
        self._check(config)
        folder = self._folder(config)
        folder.mkdir(parents=True, exist_ok=True)
        restarts_file(folder).unlink(missing_ok=True)  # those of an earlier job
        code = snapshot(folder / "code" / datetime.now().strftime("%Y%m%d-%H%M%S"), config.plugins)
        write_yaml(folder / "config.yaml", to_data(config))
        scheduled = ScheduledJob(job, config, str(folder), os.getcwd(), place_in_job)
        job_id = self._submit(scheduled, folder, code)
        launch = self.config
        write_record(folder, job_id, cluster=launch.cluster, processes=launch.processes)
        with log_to(None, terminal=True):
            where = f"{self.config.nodes} x {self.config.tasks} processes"
            log.info("submitted: job %s on %s, %s", job_id, self.config.cluster, where)
            log.info("  its output: %s/%s_0_log.out", folder, job_id)
            if self.config.gpus_per_node and self.config.cpus_per_task is None:
                log.info("  launch.cpus_per_task is not given: many clusters then give one core")
            if run := getattr(config, "run", None):
                log.info("  unlabeled jobs tail %s", run.dir)

    def _check(self, config: Any) -> None:
        """What only the whole config or this machine can say."""
        signals = config.checkpoint.on_signals if hasattr(config, "checkpoint") else None
        if signals is not None and self.config.signal not in signals:
            raise ConfigError(
                f"launch.signal: {self.config.signal} is not among checkpoint.on_signals "
                f"({', '.join(signals)}), so the job would die of it"
            )
        if self.config.cluster == "slurm" and shutil.which("sbatch") is None:
            raise EnvironmentProblem(
                "launch=slurm: there is no sbatch on this machine; submit from a login node of the "
                "cluster, or try the job here with launch.cluster=local"
            )

    def _folder(self, config: Any) -> Path:
        if self.config.folder is not None:
            return Path(self.config.folder).expanduser().absolute()
        run = getattr(config, "run", None)
        if run is None:
            return Path("jobs", f"{datetime.now():%Y%m%d-%H%M%S}").absolute()
        return Path(run.dir).expanduser().absolute() / "job"

    def executor(self, folder: Path, code: Path) -> Any:
        """submitit's executor, told all about the job."""
        import submitit

        config = self.config
        place = shlex.quote(str(code))
        # The copy of the code comes first on the path of `python -m`: the folder it starts in.
        setup = [*config.setup, f"export PYTHONPATH={place}:$PYTHONPATH", f"cd {place}"]
        if config.cluster == "slurm":
            executor = submitit.AutoExecutor(folder=folder, cluster="slurm")
            executor.update_parameters(**self._parameters([*lines_before(folder), *setup]))
            return executor
        local = submitit.LocalExecutor(folder)
        local.update_parameters(
            timeout_min=config.minutes,
            signal_delay_s=config.signal_seconds,
            gpus_per_node=config.gpus_per_node,
            tasks_per_node=config.tasks,
            setup=setup,
        )
        return local

    def _submit(self, scheduled: ScheduledJob, folder: Path, code: Path) -> str:
        import submitit

        # As submitit itself does: a job that a script defines travels with it.
        dumps = submitit.core.utils.cloudpickle.dumps  # type: ignore[attr-defined]
        task = Pickled(dumps(scheduled))
        try:
            with nothing_inherited():
                job_id: str = self.executor(folder, code).submit(task).job_id
        except submitit.core.utils.FailedJobError as error:
            reason = " ".join(str(error).split())
            raise EnvironmentProblem(
                f"launch=slurm: the job was not accepted ({reason})"
            ) from error
        return job_id

    def _parameters(self, setup: list[str]) -> dict[str, Any]:
        config = self.config
        named = {
            "gpus_per_node": config.gpus_per_node or None,
            "cpus_per_task": config.cpus_per_task,
            "mem_gb": config.mem_gb,
            "slurm_partition": config.partition,
            "slurm_qos": config.qos,
            "slurm_account": config.account,
            "slurm_constraint": config.constraint,
            "slurm_comment": config.comment,
        }
        return {
            "name": config.job_name,
            "nodes": config.nodes,
            "tasks_per_node": config.tasks,
            "timeout_min": config.minutes,
            **{name: value for name, value in named.items() if value is not None},
            **{f"slurm_{name}": value for name, value in config.parameters.items()},
            "slurm_setup": setup,
            "slurm_teardown": lines_after(config.max_restarts),
            "slurm_srun_args": ["--kill-on-bad-exit=1", *config.srun_args],
            "slurm_additional_parameters": {
                "requeue": True,
                "signal": f"{config.signal.removeprefix('SIG')}@{config.signal_seconds}",
                **config.sbatch,
            },
        }


def place_in_job() -> Place:
    """Where this process stands, as the scheduler's variables say."""
    import submitit

    job = submitit.JobEnvironment()
    return Place(
        job_id=job.raw_job_id,
        start=os.environ.get("SLURM_RESTART_COUNT", "0"),
        host=os.environ.get("SLURMD_NODENAME", "127.0.0.1"),
        rank=job.global_rank,
        local_rank=job.local_rank,
        world_size=job.num_tasks,
        local_processes=job.num_tasks // job.num_nodes,
        requeues_itself=job.cluster == "slurm",
    )
