"""A teacher behind an OpenAI-compatible endpoint answers each prompt once, before training.

Every answer is written down as it comes, in a journal beside the work files: a pod that is killed goes on where it was,
and no answer is paid for twice.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from tunesmith_contract.base import canonical_json, sha256_digest
from tunesmith_contract.layout import SecretRole
from tunesmith_contract.methods import Method, SFTMethod, TeacherEndpoint
from tunesmith_contract.run_config import DataFormat
from tunesmith_data.endpoints.chat import (
    TIMEOUT_SECONDS,
    chat_body,
    completions_url,
    messages_of,
    read_answer,
    with_answer,
)
from tunesmith_data.endpoints.client import Endpoint, RequestRefused
from tunesmith_data.endpoints.journal import Answer, Journal
from tunesmith_data.endpoints.parallel_calls import call_all
from tunesmith_data.rows.findings import Problem
from tunesmith_data.rows.reading import RefusedRow, SourceFile, SourceRow
from tunesmith_data.rows.schema.formats import Row

log = logging.getLogger(__name__)

JOURNAL_FILE = "teacher.jsonl"

#: Requests on their way at the same time.
CONCURRENCY = 8

_WHAT = "the teacher"

Progress = Callable[[int, int], None]


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
    endpoint = Endpoint(completions_url(spec.url), _WHAT, secrets / SecretRole.TEACHER, TIMEOUT_SECONDS)
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
    numbers = count(len(prompts) - len(open_questions))
    log.info("the teacher has answered %d of %d prompts", done := next(numbers), len(prompts))
    progress(done, len(prompts))
    refused: dict[str, str] = {}

    def ask(question: str) -> None:
        try:
            journal.put(question, _ask(endpoint, prompts[question], spec))
        except RequestRefused as error:
            refused[question] = error.message

    calls = (partial(ask, question) for question in open_questions)
    call_all(calls, CONCURRENCY, lambda: progress(next(numbers), len(prompts)))
    return refused


def _ask(endpoint: Endpoint, row: Row, spec: TeacherEndpoint) -> Answer:
    """One answer.

    Raises:
        RequestRefused: the teacher refuses this prompt, or says nothing to it.
        UserError: it doesn't answer as OpenAI's endpoint does.
    """
    answer = read_answer(endpoint.post(_body(row, spec)), _WHAT)
    if not answer.text.strip():
        raise RequestRefused("an empty answer")
    return answer


def _body(row: Row, spec: TeacherEndpoint) -> dict[str, Any]:
    return chat_body(spec, messages_of(row["prompt"]), spec.temperature, spec.max_tokens, row.get("tools"))


def _question(row: Row, spec: TeacherEndpoint) -> str:
    """The digest of all that an answer depends on."""
    return sha256_digest(canonical_json({"url": spec.url, **_body(row, spec)}))


def _answered(
    source: SourceFile, spec: TeacherEndpoint, journal: Journal, refused: dict[str, str]
) -> SourceFile:
    rows: list[SourceRow] = []
    bad = list(source.refused)
    for row in source.rows:
        question = _question(row.row, spec)
        answer = journal.get(question)
        if answer is not None and answer.whole:
            rows.append(replace(row, row=with_answer(row.row, answer.text)))
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
