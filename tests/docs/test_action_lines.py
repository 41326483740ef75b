"""The lines by which users annotate an AdapterDeployment, run by a shell whose kubectl shows its last argument."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tunesmith.api.actions import ACTION_ANNOTATION, Action, Verb

PAGE = Path(__file__).parents[2] / "docs" / "rollouts.md"
COMMANDS = re.findall(r"^\$ (kubectl annotate (?:.*\\\n)*.*)$", PAGE.read_text(), re.MULTILINE)


def annotated(command: str) -> str:
    """What kubectl would get as annotation."""
    script = f'kubectl() {{ printf %s "${{@: -1}}"; }}\n{command}'
    return subprocess.run(["bash", "-c", script], capture_output=True, check=True, text=True).stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_a_line_works_when_copied(command: str) -> None:
    name, _, text = annotated(command).partition("=")
    assert name == ACTION_ANNOTATION
    Action.model_validate(json.loads(text))


def test_there_is_a_line_for_each_verb() -> None:
    texts = [annotated(command).partition("=")[2] for command in COMMANDS]
    assert {json.loads(text)["verb"] for text in texts} == set(Verb)
