#!/bin/sh
# Resolves every requirements*.in into a pinned requirements*.txt with hashes, for Python 3.11 on
# Linux x86-64. Installs uv for itself where it is missing. Arguments, if any, go to `uv pip compile` (--upgrade, for instance).
set -eu
cd "$(dirname "$0")/../.."

if ! command -v uv >/dev/null; then
    tools=$(mktemp -d)
    trap 'rm -r "$tools"' EXIT
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet uv
    PATH=$tools/bin:$PATH
fi

compile() {
    source=$1
    shift
    uv pip compile --quiet --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
        --python-version 3.11 --python-platform x86_64-manylinux_2_36 --no-annotate --no-strip-extras \
        --output-file "${source%.in}.txt" "$source" "$@"
}

compile operator/requirements.in "$@"
compile serving-image/requirements.in --constraint operator/requirements.txt "$@"
compile requirements-dev.in "$@"
compile serving-image/requirements-compile.in "$@"
compile images/torch/requirements.in "$@"
compile images/torch/requirements-cuda12.in "$@"
compile trainer-image/requirements.in "$@"
compile trainer-image/requirements-cuda12.in "$@"
compile data/requirements.in --constraint trainer-image/requirements.txt "$@"
compile evaluation/requirements.in --constraint trainer-image/requirements.txt "$@"
compile trainer-image/requirements-dev.in "$@"
compile serving-image/requirements-engine.in --override serving-image/overrides-engine.txt "$@"
compile serving-image/requirements-engine-gpu.in --override serving-image/overrides-engine-gpu.txt "$@"
compile serving-image/requirements-engine-gpu-cuda12.in --override serving-image/overrides-engine-gpu.txt "$@"
compile tests/support/argilla_server/requirements.in "$@"
