#!/usr/bin/env bash
# A job on SLURM without `launch=slurm`, for those who prefer to write it in a shell: srun starts the
# processes, torchrun's variables tell each its place, and this script puts the job back into the
# queue when a signal stopped it.
#
#   sbatch --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 --signal=USR2@120 --requeue \
#       dev/launch_slurm.sh experiment=swav/r50_800ep run.dir=runs/swav dataset.root=/data/imagenet
#
# Give a run.dir: the job continues what lies there. UNLABELED is the command of the environment to
# use (default: unlabeled, on the path of the shell that submits).
#SBATCH --job-name=unlabeled
#SBATCH --open-mode=append
#SBATCH --requeue
set -uo pipefail

command=${UNLABELED:-unlabeled}
stopped=7 # the exit status of a run that a signal stopped, with its state saved

# A signal to the whole job must not end this script before it knows how the run ended.
trap : TERM USR1 USR2

# The first node is where rank 0 is. A port from the job's number: two jobs on a node differ by it,
# as long as nobody else uses these ports (launch=slurm takes a free one instead).
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT

srun --kill-on-bad-exit=1 bash -c '
    export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID
    export LOCAL_WORLD_SIZE=$((SLURM_NTASKS / SLURM_JOB_NUM_NODES))
    exec "$0" pretrain "$@"' "$command" "$@"
status=$?

state=$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T)
if ((status == stopped)) && [[ $state == RUNNING ]]; then # and was not cancelled
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
