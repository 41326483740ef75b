"""Start of vLLM's OpenAI server: ``python -m tunesmith_engine ARGUMENTS OF VLLM``."""

import os
import sys

from .start import (
    EngineProblem,
    engine_environment,
    find_problem,
    is_built_for_gpus,
    remove_old_socket,
    requested_gpus,
)


def main() -> int:
    """Become vLLM's server; return an exit code where its devices and this image do not go together."""
    gpus = requested_gpus(os.environ)
    problem = find_problem(gpus, built_for_gpus=is_built_for_gpus())
    if problem is not None:
        return _refuse(problem)
    remove_old_socket(sys.argv[1:])
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *sys.argv[1:]]
    os.execve(sys.executable, command, engine_environment(gpus, os.environ))


def _refuse(problem: EngineProblem) -> int:
    # The end of the log is the container's termination message, which the operator shows.
    sys.stderr.write(f"{problem.reason}: {problem.message}\n")
    return int(problem.exit_code)


if __name__ == "__main__":
    sys.exit(main())
