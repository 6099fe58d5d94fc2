#!/usr/bin/env bash
# Set up .venv with everything the project needs. Run it through `make setup`; running it again does nothing.
#
#   PYTHON=...        the Python to use, 3.11 to 3.14 (default: python3, or else python3.13, 3.12, 3.11, 3.14)
#   USE_UV=1          let uv bring a Python 3.12, as it does anyway where it is installed and no Python is found
#   WITH_HOROVOD=0    no Horovod, hence no compiler: for one process, and for ranks on CPUs under mpirun
#   WITH_CUDA=cu117   MXNet's CUDA wheel, and Horovod built for NCCL (needs nvcc and NCCL on this machine)
#   WITH_MPICH=0      leave out the MPICH wheel, and use this machine's mpi4py and mpirun (Open MPI, MPICH)
#   WITH_DEV=0        leave out what only development needs (pytest, ruff, mypy, tensorboard)
#   WITH_PICTURES=1   what decodes picture files (data.name: records, folder): libjpeg-turbo and OpenCV, 140 MB
#   WITH_TORCH=1      PyTorch, to carry runs there (docs/leaving.md): 200 MB to download and 800 MB on disk without CUDA
#   WITH_MPI=1        build MPI into Horovod as well (needs an MPI with mpicxx; a bare horovodrun then goes through mpirun)
#   HARNESS_VENV=...  what the environment is called, in this folder (default: .venv)
#   HARNESS_CACHE=... where to cache the Horovod wheel (default: ~/.cache/mxnet-horovod-harness)
#
# PYTHON and the WITH_ choices are remembered in .venv/choices, so later calls need not repeat them.
set -euo pipefail
cd "$(dirname "$0")"

venv=${HARNESS_VENV:-.venv}
log=$venv/setup.log
say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# --- Choices: the environment's, or else those of the last set-up, or else the defaults.

choice() { # NAME DEFAULT
    local before
    if [ -n "${!1:-}" ] || [ "$1${WITH_CUDA-unset}" = WITH_CUDA ]; then # WITH_CUDA= takes CUDA back
        printf '%s' "${!1}"
    else
        before=$(sed -n "s/^$1=//p" $venv/choices 2>/dev/null || true)
        printf '%s' "${before:-$2}"
    fi
}

horovod=$(choice WITH_HOROVOD 1) cuda=$(choice WITH_CUDA '') mpi=$(choice WITH_MPI 0)
mpich=$(choice WITH_MPICH 1) dev=$(choice WITH_DEV 1) pictures=$(choice WITH_PICTURES 0) torch=$(choice WITH_TORCH 0)
python=$(choice PYTHON '')
[[ $horovod$mpi$mpich$dev$pictures$torch == [01][01][01][01][01][01] ]] ||
    die "WITH_HOROVOD=$horovod WITH_MPI=$mpi WITH_MPICH=$mpich WITH_DEV=$dev WITH_PICTURES=$pictures WITH_TORCH=$torch: each is 0 or 1"
[ -n "${PYTHON:-}" ] || [ -x "$python" ] || python="" # what was chosen before is gone
export UV_PYTHON_PREFERENCE=only-managed
[ "${USE_UV:-0}${PYTHON:-}" != 1 ] || python=$(uv python find 3.12 2>/dev/null || true)
[ -z "$python" ] || python=$(command -v "$python" || printf '%s' "$python")
[ "$horovod" = 1 ] || [ "$mpi${cuda:-0}" = 00 ] ||
    die "WITH_HOROVOD=0, but WITH_CUDA=$cuda and WITH_MPI=$mpi are about Horovod: set WITH_HOROVOD=1, or WITH_CUDA= WITH_MPI=0"
[ "$horovod" = 1 ] || say "without Horovod (WITH_HOROVOD=1 make setup adds it)"

stamp() { # what is installed, in one line; as long as it stays the same there is nothing to do
    printf '%s python=%s horovod=%s cuda=%s mpi=%s mpich=%s dev=%s pictures=%s torch=%s %s\n' "$($venv/bin/python --version 2>&1)" \
        "$python" "$horovod" "$cuda" "$mpi" "$mpich" "$dev" "$pictures" "$torch" \
        "$(cat constraints.txt setup.py install.sh harness/build_horovod.py | sha256sum | cut -c1-16)"
}
if [ -x $venv/bin/python ] && [ "$(cat $venv/installed 2>/dev/null)" = "$(stamp)" ]; then
    exit 0
fi

# --- This distribution, and what its packages are called.

os_release() { sed -n "s/^$1=//p" "${OS_RELEASE:-/etc/os-release}" 2>/dev/null | tr -d "\"'" | head -n 1; }
distribution=$(os_release PRETTY_NAME)
case " $(os_release ID) $(os_release ID_LIKE) " in
*' debian '* | *' ubuntu '*) installer="apt-get install" ;;
*' fedora '* | *' rhel '* | *' centos '*) installer="dnf install" ;;
*suse*) installer="zypper install" ;;
*' arch '*) installer="pacman -S" ;;
*) installer="" ;;
esac

packages() { # WHAT: those that bring it; nothing if no package of this distribution is known to
    case "$installer/$1/$(os_release ID) $(os_release VERSION_ID)" in
    apt*/python/debian\ [0-9] | apt*/python/debian\ 1[01] | apt*/python/ubuntu\ 1* | apt*/python/ubuntu\ 2[013].*) ;;
    apt*/python/ubuntu\ 22.*) echo python3.11 python3.11-venv ;;
    apt*/python/*) echo python3 python3-venv ;;
    dnf*/python/*) echo python3.12 ;;
    zypper*/python/*\ 15.*) echo python312 ;;
    zypper*/python/*) echo python313 ;;
    pacman*/python/* | pacman*/venv/*) echo python ;;
    apt*/venv/*) echo "python$version-venv" ;;
    dnf*/venv/*) echo "python$version-pip" ;;
    zypper*/venv/*) echo "python${version/./}-pip" ;;
    apt*/compiler/*) echo g++ ;;
    dnf*/compiler/* | zypper*/compiler/*) echo gcc-c++ ;;
    pacman*/compiler/*) echo gcc ;;
    apt*/libraries/* | zypper*/libraries/*) echo libgomp1 libquadmath0 ;;
    dnf*/libraries/*) echo libgomp libquadmath ;;
    pacman*/libraries/*) echo gcc-libs ;;
    ?*/make/*) echo make ;;
    esac
}

lacking="" wanted="" unknown=""
lack() { # WHAT NAME: this machine has none
    local found
    found=$(packages "$1")
    lacking+="${lacking:+; }$2"
    if [ -n "$found" ]; then wanted+=" $found"; else unknown=1; fi
}

# --- The machine: is it one that MXNet's wheels are for, and what does it lack?

system="$(uname -s) on $(uname -m)"
[ "$system" = "Linux on x86_64" ] || die "this is $system, but MXNet's wheels are for Linux on x86_64 alone"
case "$(os_release ID) $(ldd --version 2>&1 || true)" in
alpine* | *musl*) die "$distribution has the C library musl, but MXNet's wheels need glibc: use a container of Debian (there is a Dockerfile)" ;;
esac

versions="3.11, 3.12, 3.13 or 3.14"
version_of() { "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null; }
is_supported() { [[ $1 == 3.1[1-4].* ]]; }

find_python() { # sets python, to nothing if there is none
    local candidate found others=""
    if [ -n "$python" ]; then
        found=$(version_of "$python") || die "PYTHON=$python cannot be run; set it to the path of a Python $versions"
        is_supported "$found" || die "PYTHON=$python is Python $found; set it to the path of a Python $versions"
        return
    fi
    for candidate in python3 python3.13 python3.12 python3.11 python3.14; do
        [ "${USE_UV:-0}" != 1 ] && found=$(version_of "$candidate") || continue
        if is_supported "$found"; then
            python=$(command -v "$candidate")
            return
        fi
        others+="${others:+, }$(command -v "$candidate") is $found"
    done
    if command -v uv >/dev/null; then
        say "uv brings a Python 3.12"
        uv python install --quiet 3.12 && python=$(uv python find 3.12) || die "uv could not install Python 3.12: see above"
    elif [ "${USE_UV:-0}" = 1 ]; then
        die "USE_UV=1, but uv is not on PATH: install it, or leave USE_UV out"
    else
        lack python "Python $versions${others:+ ($others)}"
    fi
}

find_python
if [ -n "$python" ]; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    can_import() { "$python" -c "import $1" 2>/dev/null; }
    can_import "ensurepip, venv" || lack venv "the modules venv and ensurepip of $python"
    for module in ssl ctypes zlib; do
        can_import $module || die "$python was built without the module $module, which pip or MXNet needs: set PYTHON= to another Python $versions"
    done
    "$python" -c 'import ctypes; [ctypes.CDLL(name) for name in ("libgomp.so.1", "libquadmath.so.0")]' 2>/dev/null ||
        lack libraries "libgomp.so.1 or libquadmath.so.0, which MXNet loads"
fi
if [ "$horovod" = 1 ]; then
    cxx=${CXX:-$(command -v g++ || command -v c++ || command -v clang++ || true)}
    [ -n "$cxx" ] || lack compiler "a C++ compiler"
    command -v make >/dev/null || lack make "make"
fi
if [ -n "$lacking" ]; then
    if [ -n "$unknown" ] && [ -n "$installer" ]; then
        hint="$distribution has no such Python: install uv, which brings one, or set PYTHON=/path/to/python3.12"
    elif [ -n "$unknown" ]; then
        hint="Install that${distribution:+ on $distribution, whose packages are not known here}"
    else
        hint="On $distribution: $installer$wanted"
    fi
    case $lacking in *compiler* | *make*) hint+=" (or choose WITH_HOROVOD=0, which builds nothing: one process, or mpirun on CPUs)" ;; esac
    die "this machine lacks $lacking. $hint"
fi

# --- Packages.

free_mb() { df -Pk "$1" | awk 'END { print int($4 / 1024) }'; }
pip() { $venv/bin/python -m pip "$@"; }
add() { pip install --no-compile --progress-bar off --no-color "$@"; }

fail() { # WHAT LOG: one line instead of pip's many
    local cause
    if grep -qE 'No space left on device|Disk quota exceeded' "$2" || [ "$(free_mb .)" -lt 20 ]; then
        die "$1: no space left ($(free_mb .) MB are free here, $(free_mb "${TMPDIR:-/tmp}") MB in ${TMPDIR:-/tmp}; $needed_mb MB are needed). Free some and run this again; the log is $PWD/$2"
    fi
    cause=$(grep -oE "(NewConnectionError|NameResolutionError|ConnectTimeoutError|ReadTimeoutError|ProxyError|SSLError|ProtocolError|ConnectionError)\b.*" "$2" |
        sed -E "s/^[A-Za-z]*\(['\"]*((<[^>]*>|HTTPS?Connection(Pool)?\([^)]*\)): )?//; s/['\"]*\)['\"]*(: .*)?$//" | tail -n 1 | cut -c1-200 || true)
    [ -z "$cause" ] || die "$1: pip cannot reach its package index ($cause). Check the network, https_proxy, and what \`pip config list\` says; the log is $PWD/$2"
    cause=$(grep -E '^ERROR|[Ee]rror:' "$2" | tail -n 1 | cut -c1-200 || true)
    die "$1: ${cause:-$(tail -n 1 "$2")}; the log is $PWD/$2"
}

needed_mb=$((700 + 300 * horovod + 300 * dev + 1000 * torch))
if ! [ -x $venv/bin/python ] || [ -e $venv/unfinished ] || ! pip --version >/dev/null 2>&1 ||
    [ "$($venv/bin/python --version)" != "$("$python" --version)" ] ||
    [ "$(sed -n 's/^WITH_CUDA=//p' $venv/choices 2>/dev/null || true)" != "$cuda" ]; then # MXNets share a folder
    [ "$(free_mb .)" -ge "$needed_mb" ] ||
        die "$(free_mb .) MB are free in $PWD, and $venv needs $needed_mb MB: free some, or move the checkout to another disk"
    output=$("$python" -m venv --clear $venv 2>&1) || die "could not make $venv: $(tail -n 1 <<<"$output")"
fi
rm -f $venv/installed
touch $venv/unfinished
printf '%s\n' "PYTHON=$python" "WITH_HOROVOD=$horovod" "WITH_CUDA=$cuda" "WITH_MPI=$mpi" "WITH_MPICH=$mpich" \
    "WITH_DEV=$dev" "WITH_PICTURES=$pictures" "WITH_TORCH=$torch" >$venv/choices
# pip splits this at spaces, of which this folder's path may have some; so the path is relative
export PATH="$PWD/$venv/bin:$PATH" PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=constraints.txt
mxnet=mxnet${cuda:+-$cuda}
extras=$([ "$mpich" = 0 ] || echo mpich)$([ "$dev" = 0 ] || echo ,dev)$([ "$pictures" = 0 ] || echo ,pictures)$([ "$torch" = 0 ] || echo ,torch)
say "installing into $venv with Python $version ($([ "$horovod" = 1 ] && echo "Python packages first, then Horovod" || echo "Python packages"))"
add setuptools >"$log" 2>&1 || fail "installing setuptools" "$log"

# MXNet's metadata asks for a NumPy below 2, which harness_compat makes unnecessary: hence without its dependencies,
# and so at the same time as the rest.
add --no-deps "$mxnet" >"$log.mxnet" 2>&1 &
others=$!
trap 'kill "$others" 2>/dev/null || true' EXIT
building=$([ "$horovod" = 0 ] || echo packaging cloudpickle psutil pyyaml cmake)
add --no-build-isolation --editable ".${extras:+[${extras#,}]}" requests graphviz $building >>"$log" 2>&1 ||
    fail "installing the Python packages" "$log"
wait "$others" || fail "installing $mxnet" "$log.mxnet"
trap - EXIT
[ "$mpich" = 1 ] || pip uninstall --quiet --yes mpich >>"$log" 2>&1
[ "$horovod" = 1 ] || pip uninstall --quiet --yes horovod >>"$log" 2>&1
rm $venv/unfinished

# --- Horovod, from a wheel that was built before, or from its source.

if [ "$horovod" = 1 ]; then
    release=$(grep '^horovod==' constraints.txt)
    key="${release/==/-}_${mxnet}-$(sed -n "s/^$mxnet==//p" constraints.txt)_mpi${mpi}_$("$python" -c '
import platform, sys
print(sys.implementation.cache_tag, platform.machine(), *platform.libc_ver(), sep="-")')"
    key="${key}_$($cxx -dumpversion)_$(sha256sum <harness/build_horovod.py | cut -c1-8)"
    wheels="${HARNESS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mxnet-horovod-harness}/$key"
    if ! compgen -G "$wheels/horovod-*.whl" >/dev/null; then
        say "building $release from source for $mxnet (one to two minutes on two cores; the wheel is cached in $wheels)"
        mkdir -p "$wheels" || die "cannot write there: set HARNESS_CACHE to another folder"
        [ "$mpi" = 0 ] || export HOROVOD_WITH_MPI=1
        [ -z "$cuda" ] || export HOROVOD_GPU_OPERATIONS=NCCL
        python -m harness.build_horovod "$wheels" || exit 1
    fi
    add --no-deps --force-reinstall "$wheels"/horovod-*.whl >>"$log" 2>&1 || fail "installing Horovod" "$log"
fi

# --- Does it work?

conflicts=$(pip check 2>&1 | grep -vE '^(No broken requirements found\.|mxnet[-a-z0-9]* 1\.9\.1 has requirement numpy<2\.0\.0,>1\.16\.0, but you have numpy 2\..*)$' || true)
[ -z "$conflicts" ] || die "the installed packages conflict with each other: $conflicts"
export OMP_NUM_THREADS=1
if [ "$horovod" = 1 ]; then launch="horovodrun -np 2"; elif [ "$mpich" = 1 ]; then launch="mpirun -np 2"; else launch=""; fi
kind=$([ "$horovod" = 1 ] && echo horovod || echo auto)
if [ "$horovod" = 1 ] && ! python -c 'import socket; socket.gethostbyname(socket.gethostname())' 2>/dev/null; then
    say "the name of this host has no address, without which Horovod ends in Gloo: add '127.0.1.1 $(uname -n)' to /etc/hosts"
    kind=auto
fi
test="$launch python -m harness.comm.smoke $kind"
built=$($test 2>"$log.test") || {
    cause=$(grep -m 1 -oE '[A-Za-z]*([Ee]rror|Exception): .*' "$log.test" || tail -n 1 "$log.test")
    die "a sum over two ranks failed: $cause; the log is $PWD/$log.test, and to try again: . $venv/bin/activate && $test"
}
stamp >$venv/installed
say "$(sed -n 's/.*\(ready: .*\)/\1/p' <<<"$built" | tail -n 1)"
