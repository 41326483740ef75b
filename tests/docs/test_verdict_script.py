"""The script that waits for an EvalRun, against a kubectl that says what it is told."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "pipelines" / "wait-for-verdict.sh"


def wait(
    folder: Path, verdict: str, *, ends: bool = True, arguments: tuple[str, ...] = ("team", "run")
) -> int:
    """Exit code of the script; the calls of kubectl are in the file ``calls``."""
    kubectl = folder / "kubectl"
    kubectl.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {folder}/calls\n'
        f'case "$*" in *" wait "*) exit {0 if ends else 1} ;; *status.verdict*) printf %s "{verdict}" ;; esac\n'
    )
    kubectl.chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run([SCRIPT, *arguments], env=environment, capture_output=True, check=False).returncode


@pytest.mark.parametrize(("verdict", "code"), [("Pass", 0), ("Fail", 1), ("Inconclusive", 2), ("", 10)])
def test_the_exit_code_is_the_verdict(tmp_path: Path, verdict: str, code: int) -> None:
    assert wait(tmp_path, verdict) == code
    first = (tmp_path / "calls").read_text().splitlines()[0]
    assert first.startswith(
        "--namespace team wait evalrun/run --for=jsonpath={.status.completionTime} --timeout=1h"
    )


def test_a_run_that_does_not_end_has_no_verdict(tmp_path: Path) -> None:
    assert wait(tmp_path, "Pass", ends=False) == 10
    assert wait(tmp_path, "Pass", arguments=("team",)) == 10
