#!/usr/bin/env bash
# Checks and measures mmrope on one GPU in half an hour: bash benchmarks/gpu_session.sh [PART ...]
# PART is 1 to 5 (default: all). None takes more than ten minutes, and each result is kept as soon as it is known:
# $OUT/results.jsonl holds all, $OUT/tables.md the rows for docs/benchmarks.md, $OUT/log.txt the output.
#
# It runs with $PYTHON, or else the environment of `make setup`, or else python3, which needs torch and timm. A machine
# without a network gets the other packages from wheels, downloaded elsewhere for its Python and platform:
#
#   names='onedl-mmengine|addict|termcolor|yapf|platformdirs|rich|markdown-it-py|mdurl|pygments|opencv-python-headless'
#   python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux2014_x86_64 \
#       -d work_dirs/wheels $(grep -hE "^($names)==" requirements/{onedl,common}.txt)
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
mkdir -p "${OUT:=work_dirs/gpu}"
out=$(cd "$OUT" && pwd)
if [ -d work_dirs/wheels ]; then
    "$python" -m pip install -q --no-index --no-deps --upgrade --target "$out/site" work_dirs/wheels/*.whl || exit
fi
export PYTHONPATH=$out/site:$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
export TORCHINDUCTOR_CACHE_DIR=$out/inductor TRITON_CACHE_DIR=$out/triton

failed=0
# run SECONDS COMMAND [ARGUMENT ...]: cuts off a command that takes longer, and goes on with the next.
run() {
    echo "== ${*:2}"
    timeout -k 5 "$1" "$python" benchmarks/gpu.py "${@:2}" --out "$out/results.jsonl" 2>&1 |
        tee -a "$out/log.txt" || failed=1
}

[ $# -gt 0 ] || set -- 1 2 3 4 5
for part; do case $part in
1)  # Correctness, without which no time below counts.
    run 60 env
    run 180 check
    run 90 sync vit_windows vit_global swin
    run 60 limits
    ;;
2)  # The cost of a new image size, and settings of the kernels.
    run 180 plans vit_windows swin
    run 150 tune
    ;;
3)
    run 200 bench vit_windows
    run 200 bench swin
    ;;
4)
    run 160 bench swin_batch_2
    run 180 bench vit_global
    run 60 profile vit_windows swin_batch_2
    ;;
5)  # Models compiled as a whole.
    run 140 bench vit_windows --compile --modes training
    run 140 bench swin --compile --modes training
    ;;
*)
    echo "gpu_session.sh: PART must be 1 to 5, got $part" >&2
    exit 2
    ;;
esac; done
if [ -e "$out/results.jsonl" ]; then "$python" benchmarks/gpu.py table --out "$out/results.jsonl" > "$out/tables.md"; fi
exit $failed
