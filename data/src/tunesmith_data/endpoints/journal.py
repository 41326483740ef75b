"""Journal file of paid requests and answers, so that no request is paid for twice."""

import json
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

#: Lines after which the journal is uploaded.
UPLOAD_EVERY = 32


class TokenUsage(NamedTuple):
    """Tokens of a request and of its answer."""

    prompt: int = 0
    completion: int = 0


NO_USAGE = TokenUsage()


class Spending(NamedTuple):
    """Number of calls, and their tokens."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add_calls(self, usage: TokenUsage, calls: int = 1) -> "Spending":
        """Spending after more calls of this usage."""
        return Spending(
            self.calls + calls,
            self.prompt_tokens + calls * usage.prompt,
            self.completion_tokens + calls * usage.completion,
        )

    def plus(self, other: "Spending") -> "Spending":
        """Sum of two spendings."""
        return Spending(*(first + second for first, second in zip(self, other, strict=True)))


class ChatAnswer(NamedTuple):
    """Text of an answer, whether it is complete (it may be cut off at ``maxTokens``), and its tokens."""

    text: str
    complete: bool
    usage: TokenUsage = NO_USAGE


class Journal:
    """Answers by the digest of their question, one JSON object a line; each is on disk before it counts.

    A request may be reserved before it is sent. What is reserved counts as spent until it is answered or released: a
    pod that was killed in between may have to pay for it. A last line that a killed pod left unfinished is cut off.
    Threads may share it.

    Args:
        path: the file; when it is full, ``<stem>-1``, ``-2`` … follow.
        upload: copies a file to lasting storage; called from time to time, as the disk of a pod does not stay.
        upload_every: number of lines after which a file is uploaded.
        lines_per_file: maximum lines of a file; None for no maximum.
    """

    def __init__(
        self,
        path: Path,
        upload: Callable[[Path], None],
        upload_every: int = UPLOAD_EVERY,
        lines_per_file: int | None = None,
    ) -> None:
        self._path = path
        self._upload = upload
        self._upload_every = upload_every
        self._lines_per_file = lines_per_file
        self._answers: dict[str, ChatAnswer] = {}
        self._reserved: defaultdict[str, list[TokenUsage]] = defaultdict(list)
        self._spent = Spending()
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None
        self._number = 0
        self._lines = 0

    def __enter__(self) -> "Journal":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._open(0)
        while self._file_name(self._number + 1).exists():
            self._close()
            self._open(self._number + 1)
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._upload(self._file_name(self._number))

    def get(self, question: str) -> ChatAnswer | None:
        """The answer to a question; None if there is none yet."""
        return self._answers.get(question)

    @property
    def answers(self) -> dict[str, ChatAnswer]:
        """Answers by the digest of their question, as they are now."""
        return dict(self._answers)

    @property
    def spent(self) -> Spending:
        """Spending for answers and for reserved requests."""
        return self._spent

    def put(self, question: str, answer: ChatAnswer) -> None:
        """Record an answer."""
        entry = {"question": question, "answer": answer.text, "whole": answer.complete, "usage": answer.usage}
        self._write(entry)

    def reserve(self, question: str, usage: TokenUsage) -> None:
        """Record that a request is about to be sent, with its maximum usage."""
        self._write({"question": question, "reserved": usage})

    def release(self, question: str) -> None:
        """Record that the last request for a question costs nothing."""
        self._write({"question": question, "released": True})

    def _write(self, entry: dict[str, Any]) -> None:
        with self._lock:
            assert self._file is not None
            self._file.write(json.dumps(entry).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            self._count(entry)
            full = self._lines == self._lines_per_file
            if full or not self._lines % self._upload_every:
                self._upload(self._file_name(self._number))
            if full:
                self._close()
                self._open(self._number + 1)

    def _count(self, entry: dict[str, Any]) -> None:
        self._lines += 1
        question, spent = entry["question"], self._spent
        reserved = self._reserved[question]
        if "reserved" in entry:
            usage = TokenUsage(*entry["reserved"])
            reserved.append(usage)
            spent = spent.add_calls(usage)
        elif reserved:
            spent = spent.add_calls(reserved.pop(), -1)
        if "answer" in entry:
            answer = _answer_of(entry)
            self._answers[question] = answer
            spent = spent.add_calls(answer.usage)
        self._spent = spent  # at once: others read it meanwhile

    def _open(self, number: int) -> None:
        """Read a file, and go on writing behind its last whole line."""
        self._number, self._lines = number, 0
        self._file = self._file_name(number).open("a+b")
        self._file.seek(0)
        data = self._file.read()
        complete = data[: data.rfind(b"\n") + 1]
        self._file.truncate(len(complete))
        for line in complete.splitlines():
            self._count(json.loads(line))

    def _close(self) -> None:
        assert self._file is not None
        self._file.close()

    def _file_name(self, number: int) -> Path:
        return self._path.with_stem(f"{self._path.stem}-{number}") if number else self._path


def read_answers(path: Path) -> dict[str, ChatAnswer]:
    """Answers in the journal of another pod, which may be writing to it: an unfinished last line is left out."""
    data = path.read_bytes()
    entries = map(json.loads, data[: data.rfind(b"\n") + 1].splitlines())
    return {entry["question"]: _answer_of(entry) for entry in entries if "answer" in entry}


def _answer_of(entry: Mapping[str, Any]) -> ChatAnswer:
    return ChatAnswer(entry["answer"], entry["whole"], TokenUsage(*entry.get("usage", ())))
