#!/usr/bin/env bash
# Writes the locks anew from requirements.in, -dev.in and -bench.in: `make lock`. Pins already locked stay as they are;
# `UPGRADE=1 make lock` takes the newest of all that the .in files leave open.
#
# torch is one version with two builds on Linux. The registry's build needs gigabytes of CUDA packages; a machine whose
# pip is configured to find a CPU wheel of the same version (PIP_FIND_LINKS, say) needs none of them. So
#   requirements.lock       names torch once, with the hashes of both builds, and no CUDA package;
#   requirements-cpu.lock   names the CPU build alone, which install.sh tries first;
#   requirements-cuda.lock  names the CUDA packages, which install.sh adds when the registry's build came;
#   requirements-dev.lock   names the tools of tests and checks that are not in requirements.lock;
#   requirements-bench.lock names the libraries that the benchmark alone needs, and that are not there either.
# pip takes each with --require-hashes --no-deps: what is not in a lock cannot come in.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"${PYTHON:-python3.11}" -m venv "$work/venv"
pip() { "$work/venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
pip install uv==0.13.9

if [ -z "${UPGRADE:-}" ] && [ -s requirements.lock ]; then
    cat requirements.lock requirements-cuda.lock >"$work/run"
    cp requirements-dev.lock "$work/dev"
    cp requirements-bench.lock "$work/bench"
fi
compile() {
    "$work/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
        --generate-hashes "$@" >/dev/null
}
compile requirements.in -o "$work/run"
compile requirements-dev.in -c "$work/run" -o "$work/dev"
grep -v '^learn2learn' requirements-bench.in >"$work/bench.in"
grep '^learn2learn' requirements-bench.in >"$work/alone.in"
compile "$work/bench.in" -c "$work/run" -o "$work/bench"
compile "$work/alone.in" --no-deps -o "$work/alone"  # what it asks for is for parts that are not measured
cat "$work/alone" >>"$work/bench"

# Only a machine that finds the CPU wheel can add its hash; split_lock.py keeps the one already known.
mkdir "$work/wheels"
pip download --no-deps --dest "$work/wheels" "$(grep '^torch==' requirements.in)+cpu" 2>/dev/null || true
shopt -s nullglob
"$work/venv/bin/python" infra/split_lock.py "$work/run" "$work/dev" "$work/bench" "$work"/wheels/torch-*.whl
wc -l requirements*.lock
