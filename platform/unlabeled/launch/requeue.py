"""The shell lines around a job's `srun`: they decide whether the job goes back into the queue.

They are shell because they run on the first node outside of any container, where no Python of ours
may be. The job's processes say in a file, its outcome, how they ended.
"""

from __future__ import annotations

import shlex
from pathlib import Path

BEGUN, FINISHED, STOPPED, FAILED = "begun", "finished", "stopped", "failed"
"""Outcomes: watching for signals (so if it ends now, it crashed); done; saved after a signal, to be
continued; an error that would come again."""

NEVER_BEGUN = 10
"""So often in a row a job may be signalled before it watches for signals; then it is broken."""

_BEFORE = r"""
outcome_file=$folder/$SLURM_JOB_ID.outcome
restarts=$folder/restarts.txt
# A signal must not end this script before it has seen how the processes ended.
trap : TERM USR1 USR2
rm -f "$outcome_file"
touch "$restarts"
# What SLURM put back by itself: a node failed, or the job was preempted.
if (( ${SLURM_RESTART_COUNT:-0} > $(wc -l <"$restarts") )); then
  echo "$(date -u +%FT%TZ) restarted by SLURM" >>"$restarts"
fi
ends=$(date -d "$(squeue --noheader --jobs $SLURM_JOB_ID --format %e)" +%s || echo 0)
"""

_AFTER = r"""
status=$?
failed_status=$(( status > 0 ? status : 1 ))
outcome=$(cat "$outcome_file" 2>/dev/null || echo none)
case "$outcome $status" in
  # SIGUSR1, SIGUSR2 and SIGTERM end a process that does not watch for them, or not yet.
  none*138 | none*140 | none*143) outcome="stopped by a signal" ;;
  none* | begun*) outcome="crashed with status $status" ;;
esac
state=$(squeue --noheader --jobs $SLURM_JOB_ID --format %T)
if [[ $state != RUNNING ]] && (( $(date +%s) < ends - 1 )); then
  echo "unlabeled: the job was cancelled or taken back by SLURM ($state)" >&2
  exit $failed_status
fi
# A rank that dies while it starts has srun end the others by SIGTERM, which looks the same.
if [[ $outcome == "stopped by a signal" ]] &&
  (( $(tail -n $never_begun "$restarts" | grep -c ' stopped by a signal$') == never_begun )); then
  outcome="failed: ended by a signal $((never_begun + 1)) times in a row before it had begun"
  echo "unlabeled: $outcome; not started again" >&2
fi
case $outcome in
  finished*) exit 0 ;;
  failed*) exit $failed_status ;;
  crashed*)
    if (( $(grep -c '^[^ ]* crashed' "$restarts") >= max_restarts )); then
      echo "unlabeled: $outcome, as it did $max_restarts times before; not started again" >&2
      exit $failed_status
    fi ;;
esac
echo "$(date -u +%FT%TZ) $outcome" >>"$restarts"
echo "unlabeled: $outcome; back into the queue" >&2
scontrol requeue $SLURM_JOB_ID ||
  echo "unlabeled: this SLURM requeues no jobs; continue with: unlabeled jobs resubmit" >&2
"""


def outcome_file(folder: Path, job_id: str) -> Path:
    """Where the processes of a job say how they ended, in a line that begins with an outcome."""
    return folder / f"{job_id}.outcome"


def restarts_file(folder: Path) -> Path:
    """A line (time, reason) for every restart of the job."""
    return folder / "restarts.txt"


def lines_before(folder: Path) -> list[str]:
    """Shell lines ahead of `srun`."""
    return [f"folder={shlex.quote(str(folder))}", *_BEFORE.strip().splitlines()]


def lines_after(max_restarts: int) -> list[str]:
    """Shell lines behind `srun`.

    Requeued is what was stopped by a signal, and, `max_restarts` times, what crashed. Not requeued
    is what somebody cancelled (it is no longer RUNNING before its time is over), an error that
    would come again, and what ended by a signal before it watched for any, time after time.
    """
    # The status of srun must be read before anything else.
    first, *rest = _AFTER.strip().splitlines()
    return [first, f"max_restarts={max_restarts}", f"never_begun={NEVER_BEGUN}", *rest]
