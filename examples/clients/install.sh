#!/usr/bin/env bash
# Set up .venv-clients: this project on Python 3.11, and the libraries whose models the programs in this folder train.
# `make clients` runs it; running it again does nothing.
#
#   PYTHON=...    a Python 3.11 (default: .venv's, python3.11, python3 or pyenv's, whichever is one)
set -euo pipefail
cd "$(dirname "$0")/../.."

export HARNESS_VENV=.venv-clients
say() { printf 'clients: %s\n' "$*"; }
die() { printf 'clients: %s\n' "$*" >&2; exit 1; }

# pip would bring other versions of NumPy and MXNet, and whole frameworks that the models do without
libraries="gluoncv autocfg yacs portalocker gluonnlp gluonts toolz pandas pytz sockeye sacrebleu scipy opencv-python-headless tqdm"
stamp=$(cat constraints.txt setup.py install.sh examples/clients/install.sh | sha256sum)
[ "$(cat $HARNESS_VENV/clients 2>/dev/null)" != "$stamp" ] || exit 0

is_3_11() { [ "$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = 3.11 ]; }
for python in "${PYTHON:-.venv/bin/python}" python3.11 python3 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.11.*/bin/python; do
    ! is_3_11 "$python" || break
    [ -z "${PYTHON:-}" ] || die "PYTHON=$PYTHON is not a Python 3.11, the newest that these libraries run on"
done
is_3_11 "$python" || die "no Python 3.11, the newest that these libraries run on: set PYTHON=/path/to/python3.11"
PYTHON=$(command -v "$python")
export PYTHON

rm -rf $HARNESS_VENV # so that nothing is left of what was installed over it
./install.sh
log=$HARNESS_VENV/clients.log
say "installing $libraries (the log is $log)"
# GluonNLP's C was made by a Cython that knew no Python 3.11
add() { $HARNESS_VENV/bin/python -m pip install --no-compile --quiet --constraint constraints.txt --no-deps "$@"; }
{ add cython && CYTHON_FORCE_REGEN=1 add --no-build-isolation $libraries; } >$log 2>&1 || die "$(tail -n 1 $log)"
for module in gluoncv gluonnlp gluonts.mx sockeye.model sacrebleu; do
    $HARNESS_VENV/bin/python -W ignore -c "import $module" >>$log 2>&1 || die "cannot import $module: $(tail -n 1 $log)"
done
printf '%s\n' "$stamp" >$HARNESS_VENV/clients
say "ready"
