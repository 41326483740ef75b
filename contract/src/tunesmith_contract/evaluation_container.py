"""Contract with a user's container that scores answers, version 1: items and answers in, scores out.

The published text is docs/evaluation-container.md; JSON Schemas of these documents lie beside it. Readers ignore
members that they don't know: a release may add some.
"""

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field

from .base import Digest, Report
from .methods import Name

VERSION: Literal[1] = 1

#: Names the folder that holds ``input`` and ``output``; absent in pods, where it is ``ROOT``.
FOLDER_ENV = "TUNESMITH_FOLDER"
ROOT = PurePosixPath("/tunesmith")
#: In the evaluating pod: folders that it shares with the containers of suites, by the suite's name.
SUITES_FOLDER = ROOT / "suites"
#: In the evaluating pod: folder that it shares with the sandbox for answers' code, and the sandbox's socket.
SANDBOX_FOLDER = ROOT / "sandbox"
SANDBOX_SOCKET = SANDBOX_FOLDER / "socket"
INPUT = "input"
OUTPUT = "output"

ITEMS_FILE = "items.jsonl"
CONFIG_FILE = "config.json"
#: Written last: the other files of the input are whole.
READY_FILE = "ready"
SCORES_FILE = "scores.jsonl"
PROGRESS_FILE = "progress.json"
FAILURE_FILE = "failure.json"
#: Written last by the container: the scores are whole.
DONE_FILE = "done"

#: Longest line of the scores, in bytes.
MAX_LINE_BYTES = 64 * 1024
#: Largest file that the container may leave, in bytes.
MAX_OUTPUT_BYTES = 256 * 1024 * 1024
#: Largest ``progress.json`` and ``failure.json``, in bytes.
MAX_NOTE_BYTES = 16 * 1024
#: The progress file must be written anew within this time, or the container counts as dead.
HEARTBEAT_SECONDS = 300

#: Exit code for input that the program does not understand, such as another version of the contract.
EXIT_UNSUPPORTED = 64


class ContainerConfig(Report):
    """``input/config.json``: the task of one run.

    Attributes:
        suite: name of the suite.
        sides: names of the sides; the first is the candidate, the second the baseline.
        items: number of lines of ``items.jsonl``.
        repeats: number of answers of each side to each item.
        timeout_seconds: time limit from ``ready`` to ``done``.
        heartbeat_seconds: longest time between two writes of ``progress.json``.
    """

    version: Literal[1] = VERSION
    suite: Name
    sides: tuple[Name, ...]
    items: int = Field(ge=0)
    repeats: int = Field(ge=1)
    timeout_seconds: int = Field(ge=1)
    heartbeat_seconds: int = Field(HEARTBEAT_SECONDS, ge=1)


class ContainerCall(Report):
    """Call of a tool in an answer; ``arguments`` as the model wrote them, usually an object."""

    name: str
    arguments: Any = None


class ContainerAnswer(Report):
    """One answer of a side.

    Attributes:
        text: the answer, without thinking and calls of tools.
        thinking: text between thinking marks; absent if there is none.
        complete: false if thinking never ended.
        truncated: true if it was cut at the largest number of tokens.
    """

    text: str
    thinking: str | None = None
    complete: bool = True
    truncated: bool = False
    tool_calls: tuple[ContainerCall, ...] = ()


class ContainerItem(Report):
    """Line of ``input/items.jsonl``.

    Attributes:
        digest: identity of the item; scores refer to it.
        line: line of the item in its data.
        prompt: plain-text question; absent for a conversation.
        messages: conversation before the answer; absent for plain text.
        tools: schemas of the tools.
        expected: expected answer; empty if it is a call of a tool or unknown.
        expected_calls: expected calls of tools.
        answers: answers by the name of the side, one for each repeat; none for a side that did not answer.
    """

    digest: Digest
    line: int
    prompt: str | None = None
    messages: tuple[dict[str, Any], ...] | None = None
    tools: tuple[dict[str, Any], ...] | None = None
    expected: str = ""
    expected_calls: tuple[ContainerCall, ...] = ()
    answers: dict[str, tuple[ContainerAnswer, ...]]


class ContainerScore(Report):
    """Line of ``output/scores.jsonl``: the score of one side's answers to one item.

    Attributes:
        score: from 0 to 1; null if there is none, with the reason.
        reason: reason why there is no score.
        detail: facts for the report, at most a few hundred bytes.
    """

    digest: Digest
    side: Name
    score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)] | None
    reason: str = Field("", max_length=1024)
    detail: dict[str, Any] = Field({}, max_length=32)


class ContainerProgress(Report):
    """``output/progress.json``: number of scores so far; its writing is also the sign of life."""

    done: int = Field(ge=0)
    total: int = Field(ge=0)


class ContainerFailure(Report):
    """``output/failure.json``: the program gives up."""

    message: str = Field(max_length=2048)


#: Documents by the name of their JSON Schema.
DOCUMENTS: dict[str, type[Report]] = {
    "config": ContainerConfig,
    "item": ContainerItem,
    "score": ContainerScore,
    "progress": ContainerProgress,
    "failure": ContainerFailure,
}
