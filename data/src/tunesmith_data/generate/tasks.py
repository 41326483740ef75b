"""The four tasks: what each asks of a source row, and which rows come of the answers.

A task is asked in two turns at most: first the teacher, then the judge who compares what the teacher said.
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
from tunesmith_contract.run_config import DataFormat
from tunesmith_data.endpoints.chat import messages_of, with_answer
from tunesmith_data.endpoints.journal import Answer
from tunesmith_data.endpoints.journaled_chat import Question
from tunesmith_data.rows.schema.formats import Purpose, Row, is_conversational
from tunesmith_data.rows.schema.row_texts import answer_text, prompt_text

from . import prompts
from .budgeted_chat import BudgetedChat
from .json_answers import find_choice, find_objects, find_text

#: Rows that a teacher is asked to write at once, and the seeds that it is shown.
ROWS_PER_REQUEST = 5
SEEDS_PER_REQUEST = 5
#: How many times the requests that would do are made before it is given up: teachers repeat themselves.
_PATIENCE = 4
#: Likeness from which a new question is a copy of another; the paper has ROUGE-L 0.7.
NEAR_COPY = 0.7

_PROMPTS = (DataFormat.PROMPT, *ANSWERED)
_ASKED = (
    DataFormat.CHAT,
    DataFormat.PROMPT_COMPLETION,
    DataFormat.PREFERENCE,
    DataFormat.UNPAIRED_PREFERENCE,
    DataFormat.PROMPT,
)


@dataclass(frozen=True, slots=True)
class Item:
    """What is asked about: a source row, or some seeds; the number tells apart two that are alike."""

    rows: tuple[Row, ...]
    number: int = 0

    @property
    def row(self) -> Row:
        """The only row."""
        (row,) = self.rows
        return row


@dataclass(frozen=True, slots=True)
class Draft:
    """A row that was made, and the right answer that its source knows."""

    row: Row
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Drafts:
    """What came of an item.

    Attributes:
        made: rows.
        unusable: answers that are none: refused, cut off, empty, or of another form.
        undecided: comparisons in which the judge contradicted itself, or had nothing to compare.
    """

    made: tuple[Draft, ...] = ()
    unusable: int = 0
    undecided: int = 0


class Task(Protocol):
    """What is made, and how."""

    purpose: Purpose
    #: Judge calls per item, behind the teacher's.
    comparisons: int
    #: Rows that an item may bring.
    rows_per_item: int
    #: Likeness from which a row is a copy of another one; None: only the very same question is.
    near_copy: float | None
    #: How many rows are wanted; None: what all items bring.
    wanted: int | None

    def items(self, rows: Sequence[Row]) -> Iterator[Item]:
        """What is asked about, in order."""

    def ask(self, item: Item, teacher: BudgetedChat) -> list[Question]:
        """Questions to the teacher."""

    def compare(self, item: Item, answers: Sequence[Answer | None], judge: BudgetedChat) -> list[Question]:
        """Questions to the judge."""

    def read(self, item: Item, answers: Sequence[Answer | None], verdicts: Sequence[Answer | None]) -> Drafts:
        """What came of it."""


class _EachRow:
    """A task that has an item for each row, and compares nothing."""

    comparisons = 0
    rows_per_item = 1
    near_copy: float | None = None
    wanted: int | None = None

    def items(self, rows: Sequence[Row]) -> Iterator[Item]:
        return (Item((row,)) for row in rows)

    def compare(self, item: Item, answers: Sequence[Answer | None], judge: BudgetedChat) -> list[Question]:
        return []


class AnswerTask(_EachRow):
    """The teacher answers each prompt."""

    purpose = Purpose("generate.answers", _PROMPTS, prompts_only=True)

    def __init__(self, instructions: str | None) -> None:
        self._instructions = instructions

    def ask(self, item: Item, teacher: BudgetedChat) -> list[Question]:
        return [_prompt_question(item.row, teacher, self._instructions)]

    def read(self, item: Item, answers: Sequence[Answer | None], verdicts: Sequence[Answer | None]) -> Drafts:
        (answer,) = answers
        if not _is_usable(answer):
            return Drafts(unusable=1)
        return Drafts((Draft(with_answer(item.row, answer.text), item.row.get("answer")),))


class ParaphraseTask(_EachRow):
    """The teacher says each row's question in other words; all else of the row stays."""

    purpose = Purpose("generate.paraphrases", _ASKED)

    def __init__(self, spec: Paraphrases, instructions: str | None) -> None:
        self.rows_per_item = spec.per_row
        self._instructions = instructions

    def ask(self, item: Item, teacher: BudgetedChat) -> list[Question]:
        text = prompts.PARAPHRASE.format(
            count=self.rows_per_item,
            instructions=prompts.told(self._instructions),
            question=last_question(item.row),
        )
        return [teacher.question(messages_of(text))]

    def read(self, item: Item, answers: Sequence[Answer | None], verdicts: Sequence[Answer | None]) -> Drafts:
        (answer,) = answers
        found = (find_text(each, "question", "prompt", "request") for each in _objects(answer))
        said = [text for text in found if text][: self.rows_per_item]
        made = tuple(Draft(with_question(item.row, text), answer_text(item.row)) for text in said)
        return Drafts(made, unusable=self.rows_per_item - len(made))


class SelfInstructTask:
    """The teacher writes new questions with answers, after a few of the seeds at a time."""

    purpose = Purpose("generate.selfInstruct", ANSWERED)
    comparisons = 0
    rows_per_item = ROWS_PER_REQUEST
    near_copy: float | None = NEAR_COPY

    def __init__(self, spec: SelfInstruct, instructions: str | None, seed: int) -> None:
        self.wanted: int | None = spec.rows
        self._rows = spec.rows
        self._instructions = instructions
        self._seed = seed

    def items(self, rows: Sequence[Row]) -> Iterator[Item]:
        """Other seeds each time, the same ones after a restart."""
        chance = random.Random(self._seed)
        for number in range(_PATIENCE * math.ceil(self._rows / ROWS_PER_REQUEST)):
            yield Item(tuple(chance.sample(rows, min(SEEDS_PER_REQUEST, len(rows)))), number)

    def ask(self, item: Item, teacher: BudgetedChat) -> list[Question]:
        examples = [{"question": last_question(row), "answer": answer_text(row)} for row in item.rows]
        text = prompts.SELF_INSTRUCT.format(
            count=ROWS_PER_REQUEST,
            instructions=prompts.told(self._instructions),
            examples="\n".join(canonical_json(example).decode() for example in examples),
        )
        return [teacher.question(messages_of(text), sample=item.number)]

    def compare(self, item: Item, answers: Sequence[Answer | None], judge: BudgetedChat) -> list[Question]:
        return []

    def read(self, item: Item, answers: Sequence[Answer | None], verdicts: Sequence[Answer | None]) -> Drafts:
        (answer,) = answers
        form = item.rows[0]
        pairs = [
            (
                find_text(each, "question", "prompt", "instruction"),
                find_text(each, "answer", "output", "completion"),
            )
            for each in _objects(answer)
        ][:ROWS_PER_REQUEST]
        made = tuple(Draft(new_row(form, asked, said)) for asked, said in pairs if asked and said)
        return Drafts(made, unusable=ROWS_PER_REQUEST - len(made))


class PreferenceTask(_EachRow):
    """The teacher answers several times; a judge that is asked in both orders says which is best and which worst."""

    purpose = Purpose("generate.preferences", _PROMPTS, prompts_only=True)
    comparisons = 2

    def __init__(self, spec: Preferences, instructions: str | None) -> None:
        self._count = spec.answers
        self._criteria = spec.judge.criteria
        self._letters = string.ascii_uppercase[: self._count]
        self._instructions = instructions

    def ask(self, item: Item, teacher: BudgetedChat) -> list[Question]:
        samples = range(self._count)
        return [_prompt_question(item.row, teacher, self._instructions, sample) for sample in samples]

    def compare(self, item: Item, answers: Sequence[Answer | None], judge: BudgetedChat) -> list[Question]:
        texts = _texts(answers)
        if texts is None or len(set(texts)) == 1:
            return []
        return [
            judge.question(messages_of(self._comparison(item.row, each))) for each in (texts, texts[::-1])
        ]

    def read(self, item: Item, answers: Sequence[Answer | None], verdicts: Sequence[Answer | None]) -> Drafts:
        texts = _texts(answers)
        if texts is None:
            return Drafts(unusable=1)
        choice = self._choice(verdicts)
        if choice is None or texts[choice[0]] == texts[choice[1]]:
            return Drafts(undecided=1)
        best, worst = (texts[place] for place in choice)
        return Drafts((Draft(_preference(item.row, best, worst), item.row.get("answer")),))

    def _comparison(self, row: Row, texts: Sequence[str]) -> str:
        return prompts.COMPARE.format(
            criteria=prompts.told(self._criteria),
            question=prompt_text(row),
            answers=prompts.listed_answers(texts, self._letters),
        )

    def _choice(self, verdicts: Sequence[Answer | None]) -> tuple[int, int] | None:
        """Places of the best and the worst answer, if the judge says the same in both orders."""
        if len(verdicts) != self.comparisons or not all(map(_is_usable, verdicts)):
            return None
        forth, back = (find_choice(verdict.text, self._letters) for verdict in verdicts if verdict)
        turned = back and tuple(self._count - 1 - place for place in back)
        return forth if forth == turned else None


def last_question(row: Row) -> str:
    """What the user says last, before the last answer."""
    if not is_conversational(row):
        return str(row["prompt"])
    return str(_messages(row)[_last_user(_messages(row))]["content"])


def with_question(row: Row, text: str) -> Row:
    """The row with another last question."""
    if not is_conversational(row):
        return {**row, "prompt": text}
    messages = list(_messages(row))
    place = _last_user(messages)
    messages[place] = {**messages[place], "content": text}
    return {**row, ("messages" if "messages" in row else "prompt"): messages}


def new_row(form: Row, question: str, answer: str) -> Row:
    """A row in the form of another one: its system's message stays, its conversation goes."""
    if not is_conversational(form):
        return {"prompt": question, "completion": answer}
    system = [message for message in _messages(form)[:1] if message["role"] == "system"]
    return with_answer({"prompt": [*system, *messages_of(question)]}, answer)


def _prompt_question(row: Row, teacher: BudgetedChat, instructions: str | None, sample: int = 0) -> Question:
    """A row's prompt, with what the teacher is told beside it: learned is the prompt alone."""
    messages = messages_of(row["prompt"])
    if instructions:
        system = [message["content"] for message in messages[:1] if message["role"] == "system"]
        told = {"role": "system", "content": "\n\n".join([instructions, *system])}
        messages = [told, *messages[len(system) :]]
    return teacher.question(messages, row.get("tools"), sample)


def _preference(row: Row, chosen: str, rejected: str) -> Row:
    if not is_conversational(row):
        return {"prompt": row["prompt"], "chosen": chosen, "rejected": rejected}
    said = {"chosen": chosen, "rejected": rejected}
    answers = {name: [{"role": "assistant", "content": text}] for name, text in said.items()}
    tools = {"tools": row["tools"]} if row.get("tools") else {}
    return {"prompt": row["prompt"], **answers, **tools}


def _messages(row: Row) -> list[Row]:
    found: list[Row] = row["messages"] if "messages" in row else row["prompt"]
    return found


def _last_user(messages: Sequence[Row]) -> int:
    """The place of the last message of the user; of the first message where the user says nothing."""
    places = [place for place, message in enumerate(messages) if message["role"] == "user"]
    return places[-1] if places else 0


def _is_usable(answer: Answer | None) -> TypeGuard[Answer]:
    return answer is not None and answer.whole and bool(answer.text.strip())


def _texts(answers: Sequence[Answer | None]) -> list[str] | None:
    """All answers; None where one is unusable."""
    texts = [answer.text for answer in answers if answer and _is_usable(answer)]
    return texts if len(texts) == len(answers) else None


def _objects(answer: Answer | None) -> list[dict[str, object]]:
    """The JSON objects in an answer; one that was cut off holds whole ones, too."""
    return list(find_objects(answer.text)) if answer else []
