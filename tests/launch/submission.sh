#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --comment=CVPR
#SBATCH --constraint=a100
#SBATCH --cpus-per-task=10
#SBATCH --error=/runs/a/job/%j_0_log.err
#SBATCH --exclude=node7
#SBATCH --gpus-per-node=8
#SBATCH --job-name=unlabeled
#SBATCH --mem=480GB
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=8
#SBATCH --open-mode=append
#SBATCH --output=/runs/a/job/%j_0_log.out
#SBATCH --partition=vision
#SBATCH --qos=high
#SBATCH --requeue
#SBATCH --reservation='week 12'
#SBATCH --signal=USR2@300
#SBATCH --time=4320
#SBATCH --wckey=submitit

# setup
folder=/runs/a/job
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
module load cuda
export PYTHONPATH=/runs/a/job/code/1:$PYTHONPATH
cd /runs/a/job/code/1

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /runs/a/job/%j_%t_log.out --error /runs/a/job/%j_%t_log.err --kill-on-bad-exit=1 --container-image=/images/torch.sqsh python -m submitit.core._submit


# teardown
status=$?
max_restarts=3
never_begun=10
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
