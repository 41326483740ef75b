#!/bin/sh
# The serving engine on a new GPU, with the adapters that bench/gpu_smoke.py left in OUT: start as in a pod, load each
# adapter, prove each idle and under load, speed, memory. One line per step, and OUT/gpu-serve.json. No network.
#
#     sh bench/gpu_serve.sh OUT
#
# In the image serving-gpu (podman: --device nvidia.com/gpu=all instead of --gpus all), from the root of the source tree:
#
#     docker run --rm --network none --gpus all --shm-size 4g --read-only --tmpfs /tmp:exec,size=8g \
#         -v "$PWD:/repo:ro" -v "$PWD/out:/out" -w /repo --entrypoint sh SERVING_GPU_IMAGE bench/gpu_serve.sh /out
#
# Elsewhere TUNESMITH_ENGINE_PYTHON names the Python of vLLM, and TUNESMITH_AGENT_PYTHON one with the agent's libraries.
# The rest of the arguments is passed on: --help lists them.
here=$(dirname "$0")
exec "${TUNESMITH_AGENT_PYTHON:-/opt/agent/bin/python}" "$here/gpu_prove.py" \
    --engine-python "${TUNESMITH_ENGINE_PYTHON:-/opt/venv/bin/python}" "$@"
