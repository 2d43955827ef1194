#!/usr/bin/env bash
# A real SLURM on this one machine, for trying jobs and for the tests: a controller, eight node
# daemons, and munge between them.
#
#   sudo bash dev/slurm_cluster.sh up        install what is missing (Debian, Ubuntu), start, wait
#   eval "$(bash dev/slurm_cluster.sh env)"  let this shell's sbatch, squeue, srun find it
#   bash dev/slurm_cluster.sh status         its nodes and jobs; exit status 1 if it is not up
#   sudo bash dev/slurm_cluster.sh down      cancel its jobs, stop what `up` started, remove its files
#
# It has ports, keys and folders of its own, so that it disturbs no SLURM that is already there.
# Partitions: `main` (the default), and `urgent` on the same nodes, whose jobs preempt those of main:
# SIGTERM, 60 seconds of grace, requeue.
set -euo pipefail

home=${UNLABELED_SLURM_DIR:-/run/unlabeled-slurm}
conf=$home/slurm.conf
nodes=8
first_port=16820
hosts_mark="# unlabeled: dev/slurm_cluster.sh"

say() { echo "slurm_cluster: $*" >&2; }
fail() { say "$*"; exit 5; }

need_root() { ((EUID == 0)) || fail "$1 needs root (daemons, /etc/hosts); try: sudo bash $0 $1"; }

install_packages() {
    local missing=()
    command -v slurmctld >/dev/null && command -v slurmd >/dev/null || missing+=(slurm-wlm)
    command -v munged >/dev/null || missing+=(munge)
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || fail "${missing[*]} is missing, and there is no apt-get to install it"
    say "installing ${missing[*]}"
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

write_configuration() {
    install -d -m 755 "$home" "$home/state" "$home/log"
    install -d -m 700 "$home/munge"
    [[ -f $home/munge/key ]] || (umask 077 && head -c 128 /dev/urandom >"$home/munge/key")
    local host memory number
    host=$(hostname -s)
    memory=$(($(awk '/MemTotal/ {print $2}' /proc/meminfo) / 1024))
    {
        cat <<CONF
ClusterName=unlabeled
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
AuthType=auth/munge
AuthInfo=socket=$home/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$home/state
SlurmctldPidFile=$home/slurmctld.pid
SlurmctldLogFile=$home/log/slurmctld.log
SlurmdPidFile=$home/slurmd-%n.pid
SlurmdLogFile=$home/log/slurmd-%n.log
SlurmdSpoolDir=$home/spool-%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=20
SlurmdTimeout=30
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=5,bf_interval=5
CONF
        for number in $(seq "$nodes"); do
            echo "NodeName=node$number NodeHostname=$host NodeAddr=127.0.0.1 Port=$((first_port + number)) CPUs=8 RealMemory=$memory State=UNKNOWN"
        done
        echo "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60"
        echo "PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF"
    } >"$conf"
}

name_nodes() {
    grep -qF "$hosts_mark" /etc/hosts ||
        echo "127.0.0.1 $(seq -s ' ' -f 'node%g' "$nodes") $hosts_mark" >>/etc/hosts
}

unname_nodes() {
    # Written in place: in a container /etc/hosts is a mount, and cannot be replaced.
    local kept
    kept=$(grep -vF "$hosts_mark" /etc/hosts || true)
    printf '%s\n' "$kept" >/etc/hosts
}

is_up() { [[ -f $conf ]] && SLURM_CONF=$conf scontrol ping 2>/dev/null | grep -q "is UP"; }

up() {
    need_root up
    install_packages
    if is_up; then say "already up"; return; fi
    write_configuration
    name_nodes
    export SLURM_CONF=$conf
    munged --force --key-file="$home/munge/key" --socket="$home/munge.socket" \
        --pid-file="$home/munged.pid" --log-file="$home/log/munged.log" --seed-file="$home/munge/seed"
    slurmctld
    local number
    for number in $(seq "$nodes"); do
        install -d -m 755 "$home/spool-node$number"
        slurmd -N "node$number"
    done
    for _ in $(seq 60); do
        if [[ $(sinfo --noheader --Node --states=idle --partition=main 2>/dev/null | wc -l) -eq $nodes ]]; then
            say "up: $nodes nodes; eval \"\$(bash dev/slurm_cluster.sh env)\" to use it"
            return
        fi
        sleep 1
    done
    sinfo >&2 || true
    tail -n 5 "$home"/log/*.log >&2
    fail "the nodes did not become idle within 60 s; the logs are in $home/log"
}

stop() {
    local pid
    pid=$(cat "$1" 2>/dev/null) || return 0
    kill "$pid" 2>/dev/null || return 0
    for _ in $(seq 100); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null || true
}

down() {
    need_root down
    if is_up; then
        SLURM_CONF=$conf scancel --full --signal=KILL --state=RUNNING 2>/dev/null || true
        SLURM_CONF=$conf scancel --user=root 2>/dev/null || true
        for _ in $(seq 60); do
            [[ -z $(SLURM_CONF=$conf squeue --noheader) ]] && break
            sleep 0.5
        done
    fi
    for file in "$home"/slurmd-*.pid "$home/slurmctld.pid" "$home/munged.pid"; do stop "$file"; done
    unname_nodes
    rm -rf "$home"
    say "down"
}

status() {
    is_up || { say "not up"; exit 1; }
    SLURM_CONF=$conf sinfo --Node --long
    SLURM_CONF=$conf squeue
}

case ${1:-} in
    up) up ;;
    down) down ;;
    status) status ;;
    env) echo "export SLURM_CONF=$conf" ;;
    *) fail "say up, down, status or env" ;;
esac
