"""Files that are exchanged with a user's container; those that it leaves are read as untrusted."""

import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeVar

from pydantic import ValidationError

from tunesmith_contract.base import Document, canonical_json
from tunesmith_contract.evaluation_container import (
    CONFIG_FILE,
    INPUT,
    ITEMS_FILE,
    MAX_LINE_BYTES,
    MAX_NOTE_BYTES,
    MAX_OUTPUT_BYTES,
    OUTPUT,
    READY_FILE,
    SCORES_FILE,
    ContainerConfig,
    ContainerItem,
    ContainerScore,
)

Note = TypeVar("Note", bound=Document)

#: Digest of an item and name of a side.
ScoreKey = tuple[str, str]


@dataclass(slots=True)
class ContainerScores:
    """Scores that a container left, with what was wrong.

    Attributes:
        scores: one for each item and side that answered; without a usable line, one without a value.
        missing: items and sides without a line.
        duplicates: items and sides with several lines; they have no score.
        unknown: lines that name no item or side of the run.
        invalid: lines that are no score: no JSON, too long, out of range.
        problem: reason why the container did not finish; empty if it did.
    """

    scores: dict[ScoreKey, ContainerScore] = field(default_factory=dict)
    missing: int = 0
    duplicates: int = 0
    unknown: int = 0
    invalid: int = 0
    problem: str = ""

    def describe(self) -> str:
        """Sentence about what was wrong; empty if nothing was."""
        counts = {
            "without a line": self.missing,
            "with several lines": self.duplicates,
        }
        lines = {"unknown": self.unknown, "invalid": self.invalid}
        parts = [f"{count:,} scores {what}" for what, count in counts.items() if count]
        parts += [f"{count:,} {what} lines" for what, count in lines.items() if count]
        return "; ".join(filter(None, [self.problem, ", ".join(parts)]))


def write_input(folder: Path, config: ContainerConfig, items: Iterable[ContainerItem]) -> None:
    """Write the files that a container reads, ``ready`` last.

    Args:
        folder: folder that holds ``input`` and ``output``.
    """
    target = folder / INPUT
    with (target / ITEMS_FILE).open("w", encoding="utf-8") as stream:
        for item in items:
            stream.write(f"{item.to_json()}\n")
    (target / CONFIG_FILE).write_text(config.to_json(), encoding="utf-8")
    (target / READY_FILE).touch()


def read_note(folder: Path, name: str, document: type[Note]) -> Note | None:
    """Small document that the container left; None if there is none that can be read."""
    with suppress(OSError, ValidationError, UnicodeDecodeError), _open_output(folder, name) as stream:
        return document.model_validate_json(stream.read(MAX_NOTE_BYTES))
    return None


def holds(folder: Path, name: str) -> bool:
    """True if the container left a regular file of this name."""
    try:
        with _open_output(folder, name):
            return True
    except OSError:
        return False


def written_at(folder: Path, name: str) -> int | None:
    """Time of the last change of a file that the container left, in nanoseconds; None if there is none."""
    try:
        with _open_output(folder, name) as stream:
            return os.fstat(stream.fileno()).st_mtime_ns
    except OSError:
        return None


def read_scores(
    folder: Path, sides: Sequence[str], items: Sequence[ContainerItem], problem: str = ""
) -> ContainerScores:
    """Scores that the container left.

    Args:
        folder: folder that holds ``input`` and ``output``.
        sides: names of the sides.
        items: items with the answers that were to be scored.
        problem: reason why the container did not finish.
    """
    result = ContainerScores(problem=problem)
    wanted = {(item.digest, side) for item in items for side in sides if item.answers.get(side)}
    repeated: set[ScoreKey] = set()
    for line in _score_lines(folder, result):
        score = _parse(line)
        if score is None:
            result.invalid += 1
            continue
        key = (score.digest, score.side)
        if key not in wanted:
            result.unknown += 1
        elif key in result.scores:
            repeated.add(key)
        else:
            result.scores[key] = score
    for key in repeated:
        result.scores[key] = _no_score(key, "the container left several scores")
    for key in sorted(wanted - result.scores.keys()):
        result.scores[key] = _no_score(key, problem or "the container left no valid score")
        result.missing += 1
    result.duplicates = len(repeated)
    return result


def _score_lines(folder: Path, result: ContainerScores) -> Iterator[bytes]:
    """Lines of the scores; the whole file is refused if it is too large, and said so in ``result``."""
    try:
        with _open_output(folder, SCORES_FILE) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > MAX_OUTPUT_BYTES:
                raise OSError(f"it holds {size:,} bytes, more than {MAX_OUTPUT_BYTES:,}")
            yield from _lines(stream)
    except OSError as error:
        result.problem = result.problem or f"{SCORES_FILE} can't be read: {error.strerror or error}"


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines without blank ones; of one that is too long only its beginning, which is no JSON."""
    while line := stream.readline(MAX_LINE_BYTES + 1):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE_BYTES)
        if line.strip():
            yield line if len(line) <= MAX_LINE_BYTES else b""


def _parse(line: bytes) -> ContainerScore | None:
    """Score of a line; None if it is none, or holds what no report can: NaN, halves of characters, endless depth."""
    try:
        score = ContainerScore.model_validate(json.loads(line))
        canonical_json([score.detail, score.reason])
    except (ValueError, RecursionError):
        return None
    return score


def _no_score(key: ScoreKey, reason: str) -> ContainerScore:
    return ContainerScore(digest=key[0], side=key[1], score=None, reason=reason)


@contextmanager
def _open_output(folder: Path, name: str) -> Iterator[BinaryIO]:
    """Regular file that the container left, opened without following links or waiting for a pipe.

    Raises:
        OSError: there is none, or it is something else.
    """
    directory = os.open(folder / OUTPUT, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    finally:
        os.close(directory)
    with os.fdopen(file, "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError("it is no regular file")
        yield stream
