#!/bin/sh
# Resolves every requirements*.in into a pinned requirements*.txt with hashes, for Python 3.11 on
# Linux x86-64. What images install is resolved for ARM64 as well, in the same versions: pins that it does without get a
# marker, and a version without a wheel for it is an error. Installs uv for itself where it is missing. Arguments, if any,
# go to `uv pip compile` (--upgrade, for instance).
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

# These come as source for every architecture: Python alone, but for DeepSpeed, which is built against torch.
SOURCES="deepspeed rouge-score sqlitedict word2number www-authenticate"

compile_image() {
    compile "$@"
    source=$1
    shift
    other=$(mktemp)
    from_source=$(for name in $SOURCES; do printf -- '--no-binary %s ' "$name"; done)
    # shellcheck disable=SC2086  # options, one by one
    uv pip compile --quiet --no-header --no-annotate --no-strip-extras --no-emit-index-url --no-emit-find-links \
        --python-version 3.11 --python-platform aarch64-manylinux_2_36 --only-binary :all: $from_source \
        --constraint "${source%.in}.txt" --output-file "$other" "$source" "$@"
    PYTHONPATH=e2e/images/src python3 -m tunesmith_images.architectures "${source%.in}.txt" "$other"
    rm "$other"
}

# Not those with CUDA 12: torch's public wheel of that version for ARM64 is without CUDA.
compile_image operator/requirements.in "$@"
compile_image serving-image/requirements.in --constraint operator/requirements.txt "$@"
compile requirements-dev.in "$@"
compile_image serving-image/requirements-compile.in "$@"
compile_image images/torch/requirements.in "$@"
compile images/torch/requirements-cuda12.in "$@"
compile_image trainer-image/requirements.in "$@"
compile trainer-image/requirements-cuda12.in "$@"
compile data/requirements.in --constraint trainer-image/requirements.txt "$@"
compile evaluation/requirements.in --constraint trainer-image/requirements.txt "$@"
compile trainer-image/requirements-dev.in "$@"
compile_image serving-image/requirements-engine.in --override serving-image/overrides-engine.txt "$@"
compile_image serving-image/requirements-engine-gpu.in --override serving-image/overrides-engine-gpu.txt "$@"
compile serving-image/requirements-engine-gpu-cuda12.in --override serving-image/overrides-engine-gpu.txt "$@"
compile tests/support/argilla_server/requirements.in "$@"
compile tests/support/azurite_server/requirements.in "$@"
