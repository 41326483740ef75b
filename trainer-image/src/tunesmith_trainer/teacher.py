"""A teacher behind an OpenAI-compatible endpoint answers each prompt once, before training.

Every answer is written down as it comes, in a journal beside the work files: a pod that is killed goes on where it was,
and no answer is paid for twice.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple

from tunesmith_contract.base import canonical_json, sha256_digest
from tunesmith_contract.layout import SecretRole
from tunesmith_contract.methods import Method, SFTMethod, TeacherEndpoint
from tunesmith_contract.run_config import DataFormat

from .data.findings import Problem
from .data.formats import Row
from .data.reading import RefusedRow, SourceFile, SourceRow
from .endpoints import Endpoint, RequestRefused
from .failures import UserError

log = logging.getLogger(__name__)

JOURNAL_FILE = "teacher.jsonl"

#: Answers after which the journal is kept.
KEEP_EVERY = 32
#: Requests on their way at the same time.
CONCURRENCY = 8
#: How long one answer may take, in seconds.
_TIMEOUT_SECONDS = 300.0

Progress = Callable[[int, int], None]


class Answer(NamedTuple):
    """What the teacher said, and whether that is all of it: an answer may be cut off at ``maxTokens``."""

    text: str
    whole: bool


class Journal:
    """Answers by the digest of their question, one JSON object a line; each is on disk before it counts.

    A last line that a killed pod left unfinished is cut off.

    Args:
        path: the file.
        keep: is called from time to time, to keep the file where the pod's own disk is none that stays.
    """

    def __init__(self, path: Path, keep: Callable[[Path], None]) -> None:
        self._path = path
        self._keep = keep
        self._answers: dict[str, Answer] = {}
        self._file: IO[bytes] | None = None

    def __enter__(self) -> "Journal":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a+b")
        self._file.seek(0)
        data = self._file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._file.truncate(len(whole))
        for line in whole.splitlines():
            entry = json.loads(line)
            self._answers[entry["question"]] = Answer(entry["answer"], entry["whole"])
        return self

    def __exit__(self, *_: object) -> None:
        assert self._file is not None
        self._file.close()
        self._keep(self._path)

    def get(self, question: str) -> Answer | None:
        """The answer to a question; None if there is none yet."""
        return self._answers.get(question)

    def put(self, question: str, answer: Answer) -> None:
        """Write an answer down."""
        assert self._file is not None
        entry = {"question": question, "answer": answer.text, "whole": answer.whole}
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._answers[question] = answer
        if not len(self._answers) % KEEP_EVERY:
            self._keep(self._path)


def endpoint_of(method: Method) -> TeacherEndpoint | None:
    """The endpoint that prompts are sent to before training, if the method has one."""
    return method.distillation.teacher.endpoint if method.distillation else None


def as_supervised(method: Method) -> Method:
    """What is learned once the teacher has answered: its words, and no others."""
    return Method(sft=SFTMethod(max_length=method.max_length))


def answer_sources(
    sources: Sequence[SourceFile],
    spec: TeacherEndpoint,
    journal: Journal,
    secrets: Path,
    progress: Progress,
) -> list[SourceFile]:
    """Prompts with the teacher's answers: conversations as Chat rows, plain text as prompt and completion.

    Args:
        sources: files of prompts.
        spec: the teacher.
        journal: what it has answered before.
        secrets: the folder that holds the mounted Secrets.
        progress: told the number of answers there are, and of all.

    Returns:
        The same files. A prompt that the teacher refuses is a row with a finding; one whose answer was cut off is left
        out without: it would teach to stop in the middle.

    Raises:
        UserError: the endpoint takes no such requests, or doesn't answer as OpenAI's does.
        InfrastructureError: it was busy or away for too long; what it has answered is kept.
    """
    endpoint = Endpoint(
        _completions_url(spec.url), "the teacher", secrets / SecretRole.TEACHER, _TIMEOUT_SECONDS
    )
    prompts = {_question(row.row, spec): row.row for source in sources for row in source.rows}
    with journal:
        refused = _ask_all(prompts, spec, endpoint, journal, progress)
        endpoint.close()
        return [_answered(source, spec, journal, refused) for source in sources]


def _ask_all(
    prompts: dict[str, Row], spec: TeacherEndpoint, endpoint: Endpoint, journal: Journal, progress: Progress
) -> dict[str, str]:
    """Ask what the journal doesn't know; the questions that the teacher refuses, and why."""
    open_questions = [question for question in prompts if journal.get(question) is None]
    done = len(prompts) - len(open_questions)
    log.info("the teacher has answered %d of %d prompts", done, len(prompts))
    progress(done, len(prompts))
    refused: dict[str, str] = {}
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        tasks = ((each, pool.submit(_ask, endpoint, prompts[each], spec)) for each in open_questions)
        failures: list[Exception] = []
        for number, (question, future) in enumerate(
            _as_they_end(tasks, lambda: not failures), start=done + 1
        ):
            try:
                _keep(future, question, journal, refused)
                progress(number, len(prompts))
            except Exception as error:  # raised when what is on its way has come in
                failures.append(error)
    if failures:
        raise failures[0]
    return refused


def _keep(future: Future[Answer], question: str, journal: Journal, refused: dict[str, str]) -> None:
    try:
        journal.put(question, future.result())
    except RequestRefused as error:
        refused[question] = error.message


def _as_they_end(
    tasks: Iterator[tuple[str, Future[Answer]]], wanted: Callable[[], bool]
) -> Iterator[tuple[str, Future[Answer]]]:
    """Begin a few at a time, and no more once they are not wanted; what has begun is waited for."""
    running: dict[Future[Answer], str] = {}
    while True:
        while wanted() and len(running) < CONCURRENCY and (task := next(tasks, None)):
            running[task[1]] = task[0]
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield running.pop(future), future


def _ask(endpoint: Endpoint, row: Row, spec: TeacherEndpoint) -> Answer:
    """One answer.

    Raises:
        RequestRefused: the teacher refuses this prompt, or says nothing to it.
        UserError: it doesn't answer as OpenAI's endpoint does.
    """
    answer = endpoint.post(_body(row, spec))
    try:
        choice = answer["choices"][0]
        content = choice["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        message = (
            "the teacher gives no choices[0].message.content: name an endpoint that speaks the OpenAI API"
        )
        raise UserError("TeacherAnswer", message) from error
    if not isinstance(content, str) or not content.strip():
        raise RequestRefused("an empty answer")
    return Answer(content, choice.get("finish_reason") != "length")


def _body(row: Row, spec: TeacherEndpoint) -> dict[str, Any]:
    prompt = row["prompt"]
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    body = {
        "model": spec.model,
        "messages": [_as_openai(message) for message in messages],
        "temperature": spec.temperature,
        "max_tokens": spec.max_tokens,
    }
    return body | ({"tools": row["tools"]} if row.get("tools") else {})


def _as_openai(message: Row) -> Row:
    """A message as the protocol has it: the arguments of calls are JSON text there."""
    if "tool_calls" not in message:
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def _question(row: Row, spec: TeacherEndpoint) -> str:
    """The digest of all that an answer depends on."""
    return sha256_digest(canonical_json({"url": spec.url, **_body(row, spec)}))


def _is_plain(row: Row) -> bool:
    return isinstance(row["prompt"], str)


def _answered(
    source: SourceFile, spec: TeacherEndpoint, journal: Journal, refused: dict[str, str]
) -> SourceFile:
    rows: list[SourceRow] = []
    bad = list(source.refused)
    for row in source.rows:
        question = _question(row.row, spec)
        answer = journal.get(question)
        if answer is not None and answer.whole:
            rows.append(replace(row, row=_with_answer(row.row, answer.text)))
            continue
        if answer is not None:
            bad.append(RefusedRow(row.file, row.line, row.row, ()))
            continue
        advice = "change the prompt, or take it out"
        finding = Problem("teacher_refused", refused[question], advice, "prompt").at(row.file, row.line)
        bad.append(RefusedRow(row.file, row.line, row.row, (finding,)))
    plain = bool(rows) and "prompt" in rows[0].row
    data_format = DataFormat.PROMPT_COMPLETION if plain else DataFormat.CHAT
    return replace(source, data_format=data_format, rows=tuple(rows), refused=tuple(bad))


def _with_answer(row: Row, answer: str) -> Row:
    if _is_plain(row):
        return {"prompt": row["prompt"], "completion": answer}
    tools = {"tools": row["tools"]} if row.get("tools") else {}
    return {"messages": [*row["prompt"], {"role": "assistant", "content": answer}], **tools}


def _completions_url(url: str) -> str:
    base = url.rstrip("/")
    return base if base.endswith("/chat/completions") else f"{base}/chat/completions"
