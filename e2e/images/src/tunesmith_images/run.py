"""Subprocess calls and stage times of the builds."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


class BuildError(Exception):
    """A build cannot go on; the message says what to do."""


def run(
    command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> None:
    """Run `command` with its output on our standard error.

    Raises:
        BuildError: it failed, or its program is not there.
    """
    try:
        code = subprocess.run(command, env=env, cwd=cwd, stdout=sys.stderr, check=False).returncode
    except FileNotFoundError:
        raise BuildError(f"{command[0]} is not installed") from None
    if code:
        raise BuildError(f"exit code {code} from: {' '.join(map(str, command))}")


def output(command: Sequence[str | Path]) -> str:
    """Stripped output of `command`; empty if it fails or its program is not installed."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


class Stages:
    """The seconds that each stage of a build took, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage, and announce it on standard error."""
        print(f"--- {name}", file=sys.stderr, flush=True)
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - start, 1)
            print(f"--- {name}: {self.seconds[name]} s", file=sys.stderr, flush=True)
