"""Answers of a teacher endpoint to all prompts, before training.

Every answer is written down as it comes, in a journal beside the work files: a pod that is killed goes on where it was,
and no answer is paid for twice.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from tunesmith_contract.layout import SecretRole
from tunesmith_contract.methods import Method, SFTMethod, TeacherEndpoint
from tunesmith_contract.sources import DataFormat
from tunesmith_data.endpoints.chat import messages_of, read_answer, with_answer
from tunesmith_data.endpoints.client import RequestRefused
from tunesmith_data.endpoints.journal import ChatAnswer, Journal
from tunesmith_data.endpoints.journaled_chat import ChatRequest, JournaledChat
from tunesmith_data.rows.findings import Finding
from tunesmith_data.rows.reading import FileRows, InvalidRow, SourceRow
from tunesmith_data.rows.schema.formats import Row

log = logging.getLogger(__name__)

JOURNAL_FILE = "teacher.jsonl"

#: Concurrent requests.
CONCURRENCY = 8

Progress = Callable[[int, int], None]


def endpoint_of(method: Method) -> TeacherEndpoint | None:
    """The endpoint that prompts are sent to before training, if the method has one."""
    return method.distillation.teacher.endpoint if method.distillation else None


def as_supervised(method: Method) -> Method:
    """Supervised method that learns the teacher's answers."""
    return Method(sft=SFTMethod(max_length=method.max_length))


def answer_sources(
    sources: Sequence[FileRows],
    spec: TeacherEndpoint,
    journal: Journal,
    secrets: Path,
    progress: Progress,
) -> list[FileRows]:
    """Prompts with the teacher's answers: conversations as Chat rows, plain text as prompt and completion.

    Args:
        sources: files of prompts.
        spec: the teacher.
        journal: earlier answers.
        secrets: the folder that holds the mounted Secrets.
        progress: called with the number of answers, and the total.

    Returns:
        The same files. A prompt that the teacher refuses is a row with a finding; one whose answer was cut off is left
        out without: it would teach to stop in the middle.

    Raises:
        UserError: the endpoint takes no such requests, or doesn't answer as OpenAI's does.
        InfrastructureError: it was busy or away for too long; what it has answered is kept.
    """
    teacher = _Teacher(
        spec, "the teacher", secrets / SecretRole.TEACHER, spec.temperature, spec.max_tokens, journal
    )
    with journal:
        questions = [_question(row.row, teacher) for source in sources for row in source.rows]
        total = len({question.digest for question in questions})
        numbers = count(total - len(teacher.unanswered(questions)))
        log.info("the teacher has answered %d of %d prompts", done := next(numbers), total)
        progress(done, total)
        teacher.ask_all(questions, CONCURRENCY, lambda: progress(next(numbers), total))
        teacher.close()
        return [_answered(source, teacher) for source in sources]


class _Teacher(JournaledChat):
    def fetch_answer(self, question: ChatRequest) -> ChatAnswer:
        """One answer.

        Raises:
            RequestRefused: the teacher rejects this prompt, or its answer is empty.
            UserError: it doesn't answer as OpenAI's endpoint does.
        """
        answer = read_answer(self.endpoint.post_once(question.body), self.name)
        if not answer.text.strip():
            raise RequestRefused("an empty answer")
        return answer


def _question(row: Row, teacher: _Teacher) -> ChatRequest:
    return teacher.build_request(messages_of(row["prompt"]), row.get("tools"))


def _answered(source: FileRows, teacher: _Teacher) -> FileRows:
    rows: list[SourceRow] = []
    invalid = list(source.invalid)
    for row in source.rows:
        question = _question(row.row, teacher)
        answer = teacher.answer_to(question)
        if answer is not None and answer.complete:
            rows.append(replace(row, row=with_answer(row.row, answer.text)))
            continue
        if answer is not None:
            invalid.append(InvalidRow(row.file, row.line, row.row, ()))
            continue
        advice = "change the prompt, or take it out"
        finding = Finding("teacher_refused", teacher.refusals[question.digest], advice, "prompt").at(
            row.file, row.line
        )
        invalid.append(InvalidRow(row.file, row.line, row.row, (finding,)))
    plain = bool(rows) and "prompt" in rows[0].row
    data_format = DataFormat.PROMPT_COMPLETION if plain else DataFormat.CHAT
    return replace(source, data_format=data_format, rows=tuple(rows), invalid=tuple(invalid))
