#!/usr/bin/env bash
# Puts the libraries that `make bench` measures into .peers, apart from the environment that is tested. A library that
# cannot be had is told of in one line and left out of the benchmark; it is tried again the next time.
set -uo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv} target=.peers
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip() { "$venv/bin/python" -m pip "$1" -qq --disable-pip-version-check --no-input --require-hashes --no-deps "${@:2}"; }
whole=1
missing() {
    echo "$1 cannot be had here, so the benchmark does without: $(tail -n 1 "$work/log")"
    whole=
}

rm -rf "$target"
mkdir "$target"
awk '/^[^ ]/ { theirs = /^learn2learn==/ } { print > (theirs ? "'"$work"'/source" : "'"$work"'/wheels") }' \
    requirements-bench.lock
pip install --only-binary :all: --target "$target" -r "$work/wheels" >"$work/log" 2>&1 || missing 'higher, TorchOpt and JAX'
# learn2learn 0.2.0 is a source archive whose C files, for its data sets, no longer compile. Its MAML is three files of
# Python, which are all that is measured; pip checks the archive's hash (and runs its setup.py to learn its name).
if pip download --no-binary learn2learn --dest "$work" -r "$work/source" >"$work/log" 2>&1; then
    tar -xzf "$work"/learn2learn-*.tar.gz -C "$work"
    mkdir -p "$target/learn2learn/algorithms" "$target/learn2learn/utils"
    for file in _version.py algorithms/maml.py algorithms/base_learner.py utils/__init__.py; do
        cp "$work"/learn2learn-*/learn2learn/$file "$target/learn2learn/$file"
    done
else
    missing learn2learn
fi
[ -z "$whole" ] || touch "$target/.stamp"
