#!/bin/sh
# Starts the engine; every argument goes to vLLM's OpenAI server.
exec /opt/venv/bin/python -m vllm.entrypoints.openai.api_server "$@"
