#!/usr/bin/env bash
# Test on a Slurm cluster with GPUS processes in all, GPUS_PER_NODE on each node.
set -euo pipefail

if (($# < 4)); then
    echo "usage: [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=] [PYTHON=python] $0 PARTITION JOB_NAME CONFIG CHECKPOINT [test.py arguments]" >&2
    exit 2
fi
partition=$1
job_name=$2
config=$3
checkpoint=$4
shift 4
read -ra srun_args <<<"${SRUN_ARGS:-}"

exec srun -p "$partition" \
    --job-name="$job_name" \
    --gres=gpu:"${GPUS_PER_NODE:-8}" \
    --ntasks="${GPUS:-8}" \
    --ntasks-per-node="${GPUS_PER_NODE:-8}" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${srun_args[@]+"${srun_args[@]}"} \
    "${PYTHON:-python}" -u "$(dirname "${BASH_SOURCE[0]}")/test.py" "$config" "$checkpoint" --launcher slurm "$@"
