"""Answers already given, kept on disk so that a killed run goes on where it was."""

import json
import os
from collections.abc import Mapping
from pathlib import Path


class AnswerStore:
    """Answers of one side to one suite, by item digest; a line that was torn is as good as absent.

    Args:
        path: a JSONL file, made when the first answer comes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.answers = _load(path)

    def add(self, answers: Mapping[str, str]) -> None:
        """Keep answers; they are on disk when this returns."""
        lines = "".join(json.dumps([digest, text]) + "\n" for digest, text in answers.items())
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as stream:
            # The line before may have been torn: begin a new one.
            stream.write("\n" + lines)
            stream.flush()
            os.fsync(stream.fileno())
        self.answers.update(answers)


def _load(path: Path) -> dict[str, str]:
    answers = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                digest, text = json.loads(line)
            except ValueError:
                continue
            answers[digest] = text
    return answers
