"""Journal of answers on disk, from which an interrupted evaluation continues."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from tunesmith_evaluation.answering.interface import Answerer
from tunesmith_evaluation.items.requests import Reply, Request
from tunesmith_evaluation.metrics.answers import Answer

#: Answers after which a new file begins.
_LINES_PER_FILE = 512

_ANSWER: TypeAdapter[Answer] = TypeAdapter(Answer)


#: Beginning of the names of the files of a pod, which lie in a folder of its own.
_NAME = "answers"


class AnswerJournal:
    """Answers by all that they depend on: model, prompt, decoding, seed.

    Files are small, so that an upload sends new answers alone; each attempt begins a new one. A line that a killed pod
    left unfinished is ignored. Requests without an answer are not recorded: they are asked again.

    Args:
        own: folder of this pod; those beside it are of other pods, and are read alone.
    """

    def __init__(self, own: Path) -> None:
        self._folder = own
        self._file = len(list(own.glob(f"{_NAME}-*.jsonl")))
        self._lines = 0
        self._answers: dict[str, tuple[Answer, int | None]] = {}
        for path in sorted(own.parent.glob(f"*/{_NAME}-*.jsonl")):
            self._load(path)

    def find(self, request: Request, answerer: Answerer) -> Reply | None:
        """Reply of an earlier attempt; None if there is none."""
        found = self._answers.get(request.key(answerer.identity(request.side)))
        if found is None:
            return None
        answer, prompt_tokens = found
        return Reply(request, answer, prompt_tokens=prompt_tokens)

    def add(self, replies: Sequence[Reply], answerer: Answerer) -> None:
        """Append answers, and sync them to disk."""
        lines = []
        for reply in replies:
            if reply.answer is not None:
                key = reply.request.key(answerer.identity(reply.request.side))
                self._answers[key] = reply.answer, reply.prompt_tokens
                lines.append(json.dumps([key, _ANSWER.dump_python(reply.answer), reply.prompt_tokens]) + "\n")
        if not lines:
            return
        if self._lines >= _LINES_PER_FILE:
            self._file, self._lines = self._file + 1, 0
        self._lines += len(lines)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{_NAME}-{self._file:05}.jsonl"
        with path.open("a", encoding="utf-8") as stream:
            stream.write("".join(lines))
            stream.flush()
            os.fsync(stream.fileno())

    def _load(self, path: Path) -> None:
        # Not splitlines, which divides at characters that JSON leaves as they are.
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                key, answer, prompt_tokens = json.loads(line)
                self._answers[key] = _ANSWER.validate_python(answer), prompt_tokens
            except (ValueError, TypeError, ValidationError):
                continue
