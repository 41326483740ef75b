"""The four generation tasks: requests for each source row, and rows from the answers.

A task has at most two rounds: requests to the teacher, then to the judge who compares the teacher's answers.
"""

import math
import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard

from tunesmith_contract.base import canonical_json
from tunesmith_contract.formats import ANSWERED
from tunesmith_contract.generation import Paraphrases, Preferences, SelfInstruct
from tunesmith_contract.sources import DataFormat
from tunesmith_data.endpoints.chat import messages_of, with_answer
from tunesmith_data.endpoints.journal import ChatAnswer
from tunesmith_data.endpoints.journaled_chat import ChatRequest
from tunesmith_data.rows.schema.formats import Purpose, Row, is_conversational
from tunesmith_data.rows.schema.row_texts import answer_text, prompt_text

from . import prompts
from .budgeted_chat import BudgetedChat
from .json_answers import find_choice, find_objects, find_text

#: Rows requested from the teacher at once, and seeds shown to it.
ROWS_PER_REQUEST = 5
SEEDS_PER_REQUEST = 5
#: Limit on requests, as a multiple of the minimum: teachers repeat themselves.
_MAX_REPEATS = 4
#: Similarity from which a new question is a duplicate of another; the paper uses ROUGE-L 0.7.
SIMILARITY_LIMIT = 0.7

_PROMPTS = (DataFormat.PROMPT, *ANSWERED)
_WITH_QUESTIONS = (
    DataFormat.CHAT,
    DataFormat.PROMPT_COMPLETION,
    DataFormat.PREFERENCE,
    DataFormat.UNPAIRED_PREFERENCE,
    DataFormat.PROMPT,
)


@dataclass(frozen=True, slots=True)
class TaskInput:
    """Input of a task: a source row, or some seeds; the number distinguishes equal inputs."""

    rows: tuple[Row, ...]
    number: int = 0

    @property
    def row(self) -> Row:
        """The only row."""
        (row,) = self.rows
        return row


@dataclass(frozen=True, slots=True)
class DraftRow:
    """Generated row, and the reference answer of its source row."""

    row: Row
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class TaskOutput:
    """Rows made from an input, and counts of unusable answers.

    Attributes:
        made: rows.
        unusable: number of answers that were refused, cut off, empty, or in another form.
        undecided: number of comparisons in which the judge contradicted itself, or had nothing to compare.
    """

    made: tuple[DraftRow, ...] = ()
    unusable: int = 0
    undecided: int = 0


class GenerationTask(Protocol):
    """A kind of generation: requests for inputs, and rows from answers."""

    purpose: Purpose
    #: Judge calls per input.
    comparisons: int
    #: Maximum rows from one input.
    rows_per_item: int
    #: Similarity from which a row is a duplicate; None: only an equal question is.
    similarity_limit: float | None
    #: Number of rows wanted; None: all that the inputs yield.
    wanted: int | None

    def items(self, rows: Sequence[Row]) -> Iterator[TaskInput]:
        """Inputs made from source rows, in order."""

    def ask(self, item: TaskInput, teacher: BudgetedChat) -> list[ChatRequest]:
        """Questions to the teacher."""

    def compare(
        self, item: TaskInput, answers: Sequence[ChatAnswer | None], judge: BudgetedChat
    ) -> list[ChatRequest]:
        """Questions to the judge."""

    def read(
        self, item: TaskInput, answers: Sequence[ChatAnswer | None], verdicts: Sequence[ChatAnswer | None]
    ) -> TaskOutput:
        """Rows made from the answers."""


class _RowTask:
    """Base of tasks with one input for each row and no comparisons."""

    comparisons = 0
    rows_per_item = 1
    similarity_limit: float | None = None
    wanted: int | None = None

    def items(self, rows: Sequence[Row]) -> Iterator[TaskInput]:
        return (TaskInput((row,)) for row in rows)

    def compare(
        self, item: TaskInput, answers: Sequence[ChatAnswer | None], judge: BudgetedChat
    ) -> list[ChatRequest]:
        return []


class AnswerTask(_RowTask):
    """Task in which the teacher answers each prompt."""

    purpose = Purpose("generate.answers", _PROMPTS, prompts_only=True)

    def __init__(self, instructions: str | None) -> None:
        self._instructions = instructions

    def ask(self, item: TaskInput, teacher: BudgetedChat) -> list[ChatRequest]:
        return [_prompt_request(item.row, teacher, self._instructions)]

    def read(
        self, item: TaskInput, answers: Sequence[ChatAnswer | None], verdicts: Sequence[ChatAnswer | None]
    ) -> TaskOutput:
        (answer,) = answers
        if not _is_usable(answer):
            return TaskOutput(unusable=1)
        return TaskOutput((DraftRow(with_answer(item.row, answer.text), item.row.get("answer")),))


class ParaphraseTask(_RowTask):
    """Task in which the teacher rephrases each row's question; the rest of the row stays."""

    purpose = Purpose("generate.paraphrases", _WITH_QUESTIONS)

    def __init__(self, spec: Paraphrases, instructions: str | None) -> None:
        self.rows_per_item = spec.per_row
        self._instructions = instructions

    def ask(self, item: TaskInput, teacher: BudgetedChat) -> list[ChatRequest]:
        text = prompts.PARAPHRASE.format(
            count=self.rows_per_item,
            instructions=prompts.as_paragraph(self._instructions),
            question=last_question(item.row),
        )
        return [teacher.build_request(messages_of(text))]

    def read(
        self, item: TaskInput, answers: Sequence[ChatAnswer | None], verdicts: Sequence[ChatAnswer | None]
    ) -> TaskOutput:
        (answer,) = answers
        questions = (find_text(members, "question", "prompt", "request") for members in _json_objects(answer))
        texts = [text for text in questions if text][: self.rows_per_item]
        made = tuple(DraftRow(with_question(item.row, text), answer_text(item.row)) for text in texts)
        return TaskOutput(made, unusable=self.rows_per_item - len(made))


class SelfInstructTask:
    """Task in which the teacher writes new questions and answers, from a few seeds at a time."""

    purpose = Purpose("generate.selfInstruct", ANSWERED)
    comparisons = 0
    rows_per_item = ROWS_PER_REQUEST
    similarity_limit: float | None = SIMILARITY_LIMIT

    def __init__(self, spec: SelfInstruct, instructions: str | None, seed: int) -> None:
        self.wanted: int | None = spec.rows
        self._rows = spec.rows
        self._instructions = instructions
        self._seed = seed

    def items(self, rows: Sequence[Row]) -> Iterator[TaskInput]:
        """Random seeds for each input; the same ones after a restart."""
        generator = random.Random(self._seed)
        for number in range(_MAX_REPEATS * math.ceil(self._rows / ROWS_PER_REQUEST)):
            yield TaskInput(tuple(generator.sample(rows, min(SEEDS_PER_REQUEST, len(rows)))), number)

    def ask(self, item: TaskInput, teacher: BudgetedChat) -> list[ChatRequest]:
        examples = [{"question": last_question(row), "answer": answer_text(row)} for row in item.rows]
        text = prompts.SELF_INSTRUCT.format(
            count=ROWS_PER_REQUEST,
            instructions=prompts.as_paragraph(self._instructions),
            examples="\n".join(canonical_json(example).decode() for example in examples),
        )
        return [teacher.build_request(messages_of(text), sample=item.number)]

    def compare(
        self, item: TaskInput, answers: Sequence[ChatAnswer | None], judge: BudgetedChat
    ) -> list[ChatRequest]:
        return []

    def read(
        self, item: TaskInput, answers: Sequence[ChatAnswer | None], verdicts: Sequence[ChatAnswer | None]
    ) -> TaskOutput:
        (answer,) = answers
        form = item.rows[0]
        pairs = [
            (
                find_text(members, "question", "prompt", "instruction"),
                find_text(members, "answer", "output", "completion"),
            )
            for members in _json_objects(answer)
        ][:ROWS_PER_REQUEST]
        made = tuple(DraftRow(new_row(form, question, text)) for question, text in pairs if question and text)
        return TaskOutput(made, unusable=ROWS_PER_REQUEST - len(made))


class PreferenceTask(_RowTask):
    """Task in which a judge picks the best and worst of several answers, asked in both orders."""

    purpose = Purpose("generate.preferences", _PROMPTS, prompts_only=True)
    comparisons = 2

    def __init__(self, spec: Preferences, instructions: str | None) -> None:
        self._count = spec.answers
        self._criteria = spec.judge.criteria
        self._letters = string.ascii_uppercase[: self._count]
        self._instructions = instructions

    def ask(self, item: TaskInput, teacher: BudgetedChat) -> list[ChatRequest]:
        samples = range(self._count)
        return [_prompt_request(item.row, teacher, self._instructions, sample) for sample in samples]

    def compare(
        self, item: TaskInput, answers: Sequence[ChatAnswer | None], judge: BudgetedChat
    ) -> list[ChatRequest]:
        texts = _texts(answers)
        if texts is None or len(set(texts)) == 1:
            return []
        criteria, question = prompts.as_paragraph(self._criteria), prompt_text(item.row)
        listed = [prompts.listed_answers(order, self._letters) for order in (texts, texts[::-1])]
        return [
            judge.build_request(
                messages_of(prompts.COMPARE.format(criteria=criteria, question=question, answers=answers))
            )
            for answers in listed
        ]

    def read(
        self, item: TaskInput, answers: Sequence[ChatAnswer | None], verdicts: Sequence[ChatAnswer | None]
    ) -> TaskOutput:
        texts = _texts(answers)
        if texts is None:
            return TaskOutput(unusable=1)
        choice = self._choice(verdicts)
        if choice is None or texts[choice[0]] == texts[choice[1]]:
            return TaskOutput(undecided=1)
        best, worst = (texts[place] for place in choice)
        return TaskOutput((DraftRow(_preference(item.row, best, worst), item.row.get("answer")),))

    def _choice(self, verdicts: Sequence[ChatAnswer | None]) -> tuple[int, int] | None:
        """Indexes of the best and worst answer, if the judge agrees in both orders."""
        if len(verdicts) != self.comparisons or not all(map(_is_usable, verdicts)):
            return None
        choice, reversed_choice = (
            find_choice(verdict.text, self._letters) for verdict in verdicts if verdict
        )
        same_order = reversed_choice and tuple(self._count - 1 - place for place in reversed_choice)
        return choice if choice == same_order else None


def last_question(row: Row) -> str:
    """Last message of the user before the last answer."""
    if not is_conversational(row):
        return str(row["prompt"])
    return str(_messages(row)[_last_user(_messages(row))]["content"])


def with_question(row: Row, text: str) -> Row:
    """The row with its last question replaced."""
    if not is_conversational(row):
        return {**row, "prompt": text}
    messages = list(_messages(row))
    place = _last_user(messages)
    messages[place] = {**messages[place], "content": text}
    return {**row, ("messages" if "messages" in row else "prompt"): messages}


def new_row(form: Row, question: str, answer: str) -> Row:
    """New row in the format of another, with its system message."""
    if not is_conversational(form):
        return {"prompt": question, "completion": answer}
    system = [message for message in _messages(form)[:1] if message["role"] == "system"]
    return with_answer({"prompt": [*system, *messages_of(question)]}, answer)


def _prompt_request(
    row: Row, teacher: BudgetedChat, instructions: str | None, sample: int = 0
) -> ChatRequest:
    """Request for an answer to a row's prompt; the instructions are not part of the row."""
    messages = messages_of(row["prompt"])
    if instructions:
        system = [message["content"] for message in messages[:1] if message["role"] == "system"]
        instruction = {"role": "system", "content": "\n\n".join([instructions, *system])}
        messages = [instruction, *messages[len(system) :]]
    return teacher.build_request(messages, row.get("tools"), sample)


def _preference(row: Row, chosen: str, rejected: str) -> Row:
    if not is_conversational(row):
        return {"prompt": row["prompt"], "chosen": chosen, "rejected": rejected}
    texts = {"chosen": chosen, "rejected": rejected}
    answers = {name: [{"role": "assistant", "content": text}] for name, text in texts.items()}
    tools = {"tools": row["tools"]} if row.get("tools") else {}
    return {"prompt": row["prompt"], **answers, **tools}


def _messages(row: Row) -> list[Row]:
    messages: list[Row] = row["messages"] if "messages" in row else row["prompt"]
    return messages


def _last_user(messages: Sequence[Row]) -> int:
    """Index of the user's last message; 0 if there is none."""
    places = [place for place, message in enumerate(messages) if message["role"] == "user"]
    return places[-1] if places else 0


def _is_usable(answer: ChatAnswer | None) -> TypeGuard[ChatAnswer]:
    return answer is not None and answer.complete and bool(answer.text.strip())


def _texts(answers: Sequence[ChatAnswer | None]) -> list[str] | None:
    """All answers; None where one is unusable."""
    texts = [answer.text for answer in answers if answer and _is_usable(answer)]
    return texts if len(texts) == len(answers) else None


def _json_objects(answer: ChatAnswer | None) -> list[dict[str, object]]:
    """JSON objects in an answer; a truncated answer may contain complete ones."""
    return list(find_objects(answer.text)) if answer else []
