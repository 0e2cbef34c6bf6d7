#!/usr/bin/env bash
# Makes a virtual environment: make setup [STACK=onedl|openmmlab] [OPS=torchvision|compiled] [PYTHON=python3.x]
# The next run continues one that was interrupted, and takes seconds if nothing has changed.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "setup: $*"; }
stop() { echo "setup: $*" >&2; exit 1; }
trap 'stop "failed at line $LINENO of tools/setup.sh, see above; run it again to continue."' ERR
trap 'stop "stopped; run it again to continue."' INT TERM

stack=${STACK:-onedl} ops=${OPS:-torchvision} venv=.venv
case $stack in
    onedl) ;;
    openmmlab) venv+=-openmmlab ;;
    *) stop "STACK must be onedl or openmmlab, got '$stack'." ;;
esac
case $ops in
    torchvision) ;;
    compiled) venv+=-compiled ;;
    *) stop "OPS must be torchvision or compiled, got '$ops'." ;;
esac
py=$venv/bin/python
pins=requirements/$stack.txt
mmcv=$(grep -E '^(onedl-)?mmcv==' "$pins")

# MMCV's compiled operators load, and where a GPU is to be used they were built for it.
compiled_ops_work() {
    "$py" - 2>/dev/null <<'PY'
import os, sys, torch, mmrope.ops, mmcv._ext
gpu = torch.cuda.is_available() or os.environ.get('FORCE_CUDA') == '1'
sys.exit(not mmrope.ops.compiled() or (gpu and mmcv._ext.get_compiling_cuda_version() == 'not available'))
PY
}

has_mmcv_without_operators() {
    "$py" -m pip freeze | grep -x "$mmcv" >/dev/null && ! compgen -G "$venv/lib/python*/site-packages/mmcv/_ext*" >/dev/null
}

# Changes whenever the environment has to: pins, metadata, this script, the place, the interpreter.
key() {
    { cat requirements/{torch,cuda,common}.txt "$pins" setup.cfg pyproject.toml tools/setup.sh && pwd && "$python" -VV 2>/dev/null; } | cksum
}

exit_if_up_to_date() {
    if [ "$(cat "$venv/.stamp" 2>/dev/null)" = "$(key)" ] && { [ $ops != compiled ] || compiled_ops_work; }; then
        say "$venv is up to date."
        exit
    fi
}

# The environment's own interpreter, once there is one, unless the caller names another.
python=${PYTHON:-python3}
if [ -z "${PYTHON:-}" ] && "$py" -c '' 2>/dev/null; then python=$py; fi
exit_if_up_to_date
"$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null ||
    stop "'$python' is not Python 3.10, 3.11 or 3.12; name one: make setup PYTHON=python3.11"
[ $ops != compiled ] || command -v "${CXX:-c++}" >/dev/null ||
    stop "OPS=compiled needs a C++ compiler, and there is no ${CXX:-c++}; on Debian and Ubuntu: apt-get install g++"

if command -v flock >/dev/null; then
    exec 9>"$venv.lock"
    flock -n 9 || { say "waiting for another setup of $venv."; flock 9; }
    exit_if_up_to_date
fi

free=$(df -Pm . | awk 'NR == 2 {print $4}')
[ -d "$venv" ] || [ "$free" -ge 6400 ] || stop "$venv needs 6400 MB of disk, and $free MB are free."
pip_install() { "$py" -m pip install --no-deps --progress-bar off "$@"; }
pip_fetch() { pip_install -q $([ "$free" -ge 9000 ] || echo --no-cache-dir) "$@"; }

say "1/5 virtual environment $venv for the $stack stack ($("$python" -V), $(command -v "$python"))"
if [ "$("$py" -VV 2>/dev/null)" != "$("$python" -VV)" ] || ! "$py" -m pip --version >/dev/null 2>&1; then
    "$python" -m venv --clear "$venv"
fi
# An interrupted pip leaves moved-away packages and half-installed ones, which lack INSTALLER: it is written last.
rm -rf "$venv/.stamp" "$venv"/lib/python*/site-packages/~*
for package in "$venv"/lib/python*/site-packages/*.dist-info; do
    [ -e "$package/INSTALLER" ] || rm -rf "$package"
done

say "2/5 torch and the other wheels: about 2 GB to fetch the first time, 6 GB on disk"
for group in torch cuda common; do  # each is unpacked before the next is fetched: less disk is needed
    pip_fetch -r requirements/$group.txt $(grep -E '^(numpy|setuptools)==' "$pins")
done

say "3/5 the $stack packages, and mmrope in editable mode"
pip_fetch --no-build-isolation $(grep -vE "^#|^$mmcv$" "$pins") -e .

if compiled_ops_work; then
    say "4/5 $mmcv has compiled operators, which stay; for torchvision's remove $venv first"
elif [ $ops = torchvision ]; then
    # Upstream has a wheel without operators. OneDL's package has none if torch is not there when pip builds it, as by
    # default. pip must not cache that wheel: it would install it where operators are wanted.
    mmcv=${mmcv/#mmcv==/mmcv-lite==}
    say "4/5 $mmcv without compiled operators: torchvision's and PyTorch's replace them"
    if ! has_mmcv_without_operators; then
        "$py" -m pip uninstall -q -y mmcv mmcv-lite onedl-mmcv 2>/dev/null
        pip_install -q --no-cache-dir "$mmcv"
        has_mmcv_without_operators || stop "$mmcv has operators, but they do not load."
    fi
else
    say "4/5 $mmcv: builds its C++ operators, some minutes on 2 cores, or takes the wheel that pip kept"
    "$py" -c 'import sys, torch; from torch.utils.cpp_extension import CUDA_HOME
sys.exit(torch.cuda.is_available() and not CUDA_HOME)' ||
        stop "there is a GPU but no nvcc to build MMCV's operators for it; install the CUDA toolkit of torch's version" \
             "and set CUDA_HOME, or run make setup without OPS=compiled"
    export CFLAGS="${CFLAGS:-} -g0" CXXFLAGS="${CXXFLAGS:-} -g0"  # debug information is half of the compilation
    pip_install --no-build-isolation "$mmcv"
    # The wheel that pip kept may be of another torch or machine.
    compiled_ops_work || pip_install --no-build-isolation --force-reinstall --no-cache-dir "$mmcv"
    compiled_ops_work || stop "MMCV's operators do not load, see above."
fi
"$py" -m mmrope ops

say "5/5 checking that everything imports"
"$py" -W ignore - <<'PY'
import torch
import mmdet.datasets, mmdet.evaluation, mmdet.models, mmseg.datasets, mmseg.evaluation, mmseg.models
import mmpretrain.datasets, mmpretrain.evaluation, mmpretrain.models, mmrope
device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU only'
print(f'mmrope {mmrope.__version__}, torch {torch.__version__}, {device}')
PY
key >"$venv/.stamp"
say "$venv is ready; use it with: source $venv/bin/activate"
