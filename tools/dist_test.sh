#!/usr/bin/env bash
# Test with GPUS processes on this machine, or on several machines with NNODES, NODE_RANK and MASTER_ADDR.
set -euo pipefail

if (($# < 3)) || [[ ! $3 =~ ^([0-9]+|auto|cpu|gpu)$ ]]; then
    echo "usage: [NNODES=1] [NODE_RANK=0] [PORT=29500] [MASTER_ADDR=127.0.0.1] [PYTHON=python] $0 CONFIG CHECKPOINT GPUS [test.py arguments]" >&2
    exit 2
fi
config=$1
checkpoint=$2
gpus=$3
shift 3

tools=$(dirname "${BASH_SOURCE[0]}")
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$gpus" \
    "$tools/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
