"""Generated answers on disk, from which an interrupted evaluation continues."""

import json
import os
from collections.abc import Mapping
from pathlib import Path


class AnswerStore:
    """Answers of one side to one suite; incomplete lines of an interrupted write are ignored.

    Args:
        path: a JSONL file, created with the first answer.

    Attributes:
        answers: text by item digest.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.answers = _load(path)

    def add(self, answers: Mapping[str, str]) -> None:
        """Append answers, and sync them to disk."""
        lines = "".join(json.dumps([digest, text]) + "\n" for digest, text in answers.items())
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as stream:
            # The last line may be incomplete: start a new one.
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
