#!/usr/bin/env bash
# Set up .venv with everything the project needs. Run it through `make setup`; running it again does nothing.
#
#   WITH_CUDA=cu117   MXNet's CUDA wheel, and Horovod built for NCCL (needs nvcc and NCCL on this machine)
#   WITH_MPICH=0      leave out the MPICH wheel, and use this machine's mpi4py and mpirun (Open MPI, MPICH)
#   WITH_DEV=0        leave out what only development needs (pytest, ruff, mypy, tensorboard)
#   WITH_MPI=1        build MPI into Horovod as well (needs an MPI with mpicxx; a bare horovodrun then goes through mpirun)
#   PYTHON=...        the Python 3.11 to use
#   HARNESS_CACHE=... where to cache the Horovod wheel (default: ~/.cache/mxnet-horovod-harness)
set -euo pipefail
cd "$(dirname "$0")"

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "Python 3.11 not found: install it (Debian: apt-get install python3.11 python3.11-venv), or set PYTHON=/path/to/python3.11"
}

python=$(find_python)
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    die "this Python has no venv: install it (Debian: apt-get install python3.11-venv)"
cxx=${CXX:-$(command -v g++ || command -v c++ || command -v clang++ || true)}
[ -n "$cxx" ] || die "no C++ compiler found: install one (Debian: apt-get install g++), Horovod is built from source"
command -v make >/dev/null || die "make not found: install it (Debian: apt-get install make)"

cuda=${WITH_CUDA:-}
mpi=${WITH_MPI:-0}
mpich=${WITH_MPICH:-1}
dev=${WITH_DEV:-1}
stamp="$("$python" --version) cuda=${cuda:-none} mpi=$mpi mpich=$mpich dev=$dev $(cat constraints.txt setup.py install.sh | sha256sum | cut -c1-16)"
if [ "$(cat .venv/installed 2>/dev/null)" = "$stamp" ]; then
    exit 0
fi

say "installing into .venv (Python packages first, then Horovod)"
[ -x .venv/bin/python ] && .venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear .venv
rm -f .venv/installed
export PATH="$PWD/.venv/bin:$PATH" PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT="$PWD/constraints.txt"
mxnet=mxnet${cuda:+-$cuda}
pip install --quiet --quiet setuptools wheel packaging cloudpickle psutil pyyaml cffi cmake numpy "$mxnet"

# Horovod imports MXNet during its build, hence no build isolation; each WITH flag turns a missing part into an error.
export HOROVOD_WITH_MXNET=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1
if [ "$mpi" = 1 ]; then export HOROVOD_WITH_MPI=1; else export HOROVOD_WITHOUT_MPI=1; fi
[ -z "$cuda" ] || export HOROVOD_GPU_OPERATIONS=NCCL
horovod=$(grep '^horovod==' constraints.txt)
key="${horovod/==/-}_${mxnet}-$(sed -n "s/^$mxnet==//p" constraints.txt)_mpi${mpi}_$("$python" -c '
import platform, sys
print(sys.implementation.cache_tag, platform.machine(), *platform.libc_ver(), sep="-")')"
key="${key}_$("$cxx" -dumpversion)"
wheels="${HARNESS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mxnet-horovod-harness}/$key"
if ! compgen -G "$wheels/horovod-*.whl" >/dev/null; then
    say "building $horovod from source for $mxnet (two to three minutes on two cores; the wheel is cached in $wheels)"
    mkdir -p "$wheels"
    building=$(mktemp -d "$wheels/building.XXXXXX")
    trap 'rm -rf "$building"' EXIT
    pip wheel --no-build-isolation --no-deps --no-cache-dir --no-binary horovod --wheel-dir "$building" "$horovod" \
        >"$building/log" 2>&1 || {
        grep --max-count=5 --after-context=5 -E 'CMake Error|[^a-z]error:' "$building/log" >&2
        tail -n 20 "$building/log" >&2
        die "building Horovod failed; the first errors and the end of the log are above"
    }
    mv "$building"/horovod-*.whl "$wheels/"
fi
pip install --quiet --quiet --no-deps --force-reinstall "$wheels"/horovod-*.whl
extras=${cuda:-cpu}
if [ "$mpich" = 0 ]; then pip uninstall --quiet --quiet --yes mpich; else extras+=,mpich; fi
[ "$dev" = 0 ] || extras+=,dev
pip install --quiet --quiet --no-build-isolation --editable ".[$extras]"
pip check >/dev/null || { pip check >&2 || true; die "the installed packages conflict with each other"; }

built=$(OMP_NUM_THREADS=1 horovodrun -np 2 python -m harness.comm.smoke) || die "two ranks could not sum an array: $built"
printf '%s\n' "$stamp" >.venv/installed
say "$(sed -n 's/.*<stdout>: *//p' <<<"$built" | tail -n 1)"
