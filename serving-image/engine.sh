#!/bin/sh
# Starts the engine in the environment of vLLM; every argument goes to vLLM's OpenAI server.
exec /opt/venv/bin/python -m tunesmith_engine "$@"
