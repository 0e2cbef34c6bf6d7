#!/usr/bin/env bash
# Makes a virtual environment: make setup [STACK=onedl|openmmlab] [OPS=torchvision|compiled] [PYTHON=python3.x]
# Running it again goes on where it stopped, and takes seconds when all is in place.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "setup: $*"; }
stop() { echo "setup: $*" >&2; exit 1; }
trap 'echo "setup: failed at line $LINENO of tools/setup.sh." >&2' ERR
trap 'stop "stopped; run it again and it goes on from here."' INT TERM

stack=${STACK:-onedl} ops=${OPS:-torchvision}
case $stack in
    onedl) venv=.venv ;;
    openmmlab) venv=.venv-openmmlab ;;
    *) stop "STACK is '$stack', and can be onedl or openmmlab." ;;
esac
case $ops in
    torchvision) ;;
    compiled) venv=$venv-compiled ;;
    *) stop "OPS is '$ops', and can be torchvision or compiled." ;;
esac
py=$venv/bin/python
pins=requirements/$stack.txt
mmcv=$(grep -E '^(onedl-)?mmcv==' "$pins")

bar=off
if [ -t 1 ]; then bar=on; fi
pip_install() { "$py" -m pip install --no-deps --progress-bar $bar "$@"; }

# Changes when the environment has to: pins, metadata, this script, the place, the interpreter.
key() {
    { cat requirements/{torch,cuda,common}.txt "$pins" setup.cfg pyproject.toml tools/setup.sh && pwd && "$python" -VV; } | cksum
}

# mmcv's compiled operators load, and where a GPU is to be used they were built for it.
compiled_ops_work() {
    "$py" - 2>/dev/null <<'PY'
import os, sys, torch, mmrope.ops, mmcv._ext
gpu = torch.cuda.is_available() or os.environ.get('FORCE_CUDA') == '1'
sys.exit(not mmrope.ops.compiled() or (gpu and mmcv._ext.get_compiling_cuda_version() == 'not available'))
PY
}

has_mmcv_without_operators() {
    "$py" - $mmcv <<'PY'
import sys
from importlib.metadata import PackageNotFoundError, distribution
name, version = sys.argv[1].split('==')
try:
    mmcv = distribution(name)
except PackageNotFoundError:
    sys.exit(1)
sys.exit(mmcv.version != version or any(mmcv.locate_file('mmcv').glob('_ext*')))
PY
}

up_to_date() {
    [ -f "$venv/.stamp" ] && [ "$(cat "$venv/.stamp")" = "$(key)" ] && { [ $ops != compiled ] || compiled_ops_work; }
}

# free_mb DIRECTORY: what its disk has left; the directory may not be there yet.
free_mb() {
    local at=$1
    until [ -e "$at" ]; do at=$(dirname "$at"); done
    df -Pm "$at" | awk 'NR == 2 {print $4}'
}

# check_room MB DIRECTORY HINT
check_room() {
    [ "$(free_mb "$2")" -ge "$1" ] || stop "$1 MB are needed on the disk of $2, and $(free_mb "$2") MB are free; $3"
}

# The venv's own interpreter, once there is one; else what the caller named.
python=${PYTHON:-python3}
if [ -z "${PYTHON:-}" ] && "$py" -c '' 2>/dev/null; then python=$py; fi
if up_to_date; then say "$venv is up to date."; exit; fi

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
    stop "'$python' does not run; install Python 3.10, 3.11 or 3.12, or name one: make setup PYTHON=python3.11"
case $version in
    3.10 | 3.11 | 3.12) ;;
    *) stop "'$python' is Python $version, and Python 3.10, 3.11 or 3.12 is needed; name one: make setup PYTHON=python3.11" ;;
esac
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    stop "Python $version has no venv module; on Debian and Ubuntu: apt-get install python$version-venv"

if command -v flock >/dev/null; then
    exec 9>"$venv.lock"
    flock -n 9 || { say "another setup of $venv is running; waiting for it."; flock 9; }
    if up_to_date; then say "$venv is up to date."; exit; fi
fi

if [ $ops = compiled ] && ! compiled_ops_work; then
    command -v "${CXX:-c++}" >/dev/null ||
        stop "no C++ compiler ('${CXX:-c++}'), and OPS=compiled builds mmcv's operators; on Debian and Ubuntu: apt-get install g++"
    "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        stop "Python $version has no header files (Python.h); on Debian and Ubuntu: apt-get install python$version-dev"
fi
# Each group of wheels is unpacked before the next is fetched, so on one disk they take no more than what is still to come.
have=$({ du -sm "$venv" 2>/dev/null || true; } | cut -f 1)
left=$((${have:-0} < 5800 ? 6400 - ${have:-0} : 600))
check_room $left "$venv" "make room."
check_room $((left < 1200 ? left : 1200)) "${TMPDIR:-/tmp}" "make room, or set TMPDIR to a place that has it."
no_cache=  # an option for pip, where what it fetches cannot be kept too
if [ "$(free_mb "${PIP_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/pip}")" -lt $((left + 2000)) ]; then no_cache=--no-cache-dir; fi

say "1/5 virtual environment $venv for the $stack stack, Python $version ($(command -v "$python"))"
if [ "$("$py" -VV 2>/dev/null)" != "$("$python" -VV)" ] || ! "$py" -m pip --version >/dev/null 2>&1; then
    "$python" -m venv --clear "$venv"
fi
# What an interrupted pip leaves: moved-away packages, and half-installed ones (INSTALLER is written last).
rm -rf "$venv/.stamp" "$venv"/lib/python*/site-packages/~*
for package in "$venv"/lib/python*/site-packages/*.dist-info; do
    if [ ! -e "$package/INSTALLER" ]; then rm -rf "$package"; fi
done

say "2/5 torch and the other wheels: about 2 GB to fetch the first time, 6 GB on disk"
for group in torch cuda common; do
    pip_install -q $no_cache -r requirements/$group.txt $(grep -E '^(numpy|setuptools)==' "$pins") ||
        stop "pip could not install the wheels, see above; run it again and it goes on from here."
done

say "3/5 the $stack packages, and mmrope in editable mode"
pip_install -q $no_cache --no-build-isolation $(grep -vE "^#|^$mmcv$" "$pins") -e . ||
    stop "pip could not install the $stack packages, see above; run it again and it goes on from here."

if compiled_ops_work; then
    say "4/5 $mmcv has compiled operators, which stay; for torchvision's remove $venv first"
elif [ $ops = torchvision ]; then
    # Upstream has a wheel without operators. OneDL's package has none if torch is not there when pip builds it, as by
    # default. pip must not keep the result: it would install it where operators are wanted.
    mmcv=${mmcv/#mmcv==/mmcv-lite==}
    say "4/5 $mmcv without compiled operators: torchvision's and PyTorch's stand in for them"
    if ! has_mmcv_without_operators; then
        "$py" -m pip uninstall -q -y mmcv mmcv-lite onedl-mmcv 2>/dev/null
        pip_install -q --no-cache-dir "$mmcv" && has_mmcv_without_operators ||
            stop "$mmcv could not be installed, or has operators that do not load; see above."
    fi
else
    say "4/5 $mmcv: builds its C++ operators, some minutes on 2 cores, or takes the wheel that pip kept"
    "$py" -c 'import sys, torch; from torch.utils.cpp_extension import CUDA_HOME
sys.exit(3 if torch.cuda.is_available() and not CUDA_HOME else 0)' 2>/dev/null || [ $? != 3 ] ||
        stop "there is a GPU but no CUDA toolkit (nvcc) to build mmcv's operators for it; install that of torch's CUDA" \
             "version and set CUDA_HOME, or do without: make setup needs none"
    SECONDS=0
    export CFLAGS="${CFLAGS:-} -g0" CXXFLAGS="${CXXFLAGS:-} -g0"  # debug information is half of the compilation
    pip_install --no-build-isolation "$mmcv" || stop "mmcv's operators could not be built, see above."
    if ! compiled_ops_work; then
        say "    the kept wheel was built for another torch or machine; building anew"
        pip_install --no-build-isolation --force-reinstall --no-cache-dir "$mmcv" && compiled_ops_work ||
            stop "mmcv's operators could not be built or do not load, see above."
    fi
    say "    took $((SECONDS / 60)) min $((SECONDS % 60)) s"
fi
"$py" -m mmrope ops

say "5/5 checking that everything imports"
report=$("$py" -W ignore - 2>&1 <<'PY'
import torch
import mmdet.datasets, mmdet.evaluation, mmdet.models, mmseg.datasets, mmseg.evaluation, mmseg.models
import mmpretrain.datasets, mmpretrain.evaluation, mmpretrain.models, mmrope
device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU only'
print(f'mmrope {mmrope.__version__}, torch {torch.__version__}, {device}')
PY
) || stop "the environment does not work: remove $venv and run it again. $report"
key >"$venv/.stamp"
say "$venv is ready, with ${report##*$'\n'}; use it with: source $venv/bin/activate"
