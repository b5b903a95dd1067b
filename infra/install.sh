#!/usr/bin/env bash
# Makes the virtual environment from the locks: infra/install.sh [dev]. Needs only python3.11 with pip.
# PYTHON chooses another interpreter, VENV another folder. pip's own configuration (index, proxy, wheels) is respected.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv} python=${PYTHON:-python3.11}

if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
    echo "Python 3.11 was expected as '$python', but it is not; install it, or name it: make PYTHON=/path/to/python3.11" >&2
    exit 1
fi
if ! "$venv/bin/python" -c 'import pip, sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
    "$python" -m venv --clear "$venv"
fi
# Wheels only: nothing that was downloaded runs while it is installed. --no-deps: the locks name everything.
install() {
    "$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-input \
        --require-hashes --no-deps --only-binary :all: "$@"
}
# A machine whose pip is configured to find torch's CPU build gets that one. It has to be asked for by name: of two files
# with good hashes pip prefers the registry's, whose hash it knows before the download.
install -r requirements-cpu.lock 2>/dev/null || true
install -r requirements.lock
if "$venv/bin/python" -c '
import sys
from importlib.metadata import requires
sys.exit(not any(need.startswith("nvidia") for need in requires("torch") or []))'; then
    echo "This torch is the CUDA build: installing its CUDA packages (some gigabytes, once)"
    install -r requirements-cuda.lock
fi
[ "${1:-}" != dev ] || install -r requirements-dev.lock
