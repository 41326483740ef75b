#!/bin/sh
# Starts the engine; every argument goes to vLLM's OpenAI server.
# Without a GPU only the sampler would be compiled: 13 s at the first request, for nothing gained.
[ -e /dev/nvidiactl ] || export TORCH_COMPILE_DISABLE=1
exec /opt/venv/bin/python -m vllm.entrypoints.openai.api_server "$@"
