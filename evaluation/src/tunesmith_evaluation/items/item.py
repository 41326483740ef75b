"""Item of an evaluation: a question with its expected answer."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tunesmith_contract.base import canonical_json, sha256_digest
from tunesmith_data.rows.clean.compared_text import normalize
from tunesmith_data.rows.schema.formats import Row, is_conversational
from tunesmith_data.rows.schema.row_checks import row_digest
from tunesmith_evaluation.metrics.answers import Expected, Question
from tunesmith_evaluation.metrics.reading import read_expected

from .requests import Message

#: Members of rows that hold reference data for metrics: tests of code, a JSON schema, and if a refusal is right.
REFERENCE_MEMBERS = ("tests", "json_schema", "refuses")


@dataclass(frozen=True, slots=True)
class EvaluationItem:
    """Question with its expected answer.

    Attributes:
        digest: digest of the row, and of the passages that sides see beside it.
        messages: conversation before the answer; empty for plain text.
        text: prompt of plain text; empty for a conversation.
        tools: schemas of tools.
        answer: last turn of the assistant; for plain text a message with the completion.
        expected: expected answer as metrics see it.
        file, line: place of the row.
        row: the row in canonical form.
        group: items with the same group are not independent; None: the item is alone.
        slices: values by the columns by which results are shown.
        passages: retrieved passages by column.
    """

    digest: str
    messages: tuple[Message, ...]
    text: str
    tools: tuple[Mapping[str, Any], ...]
    answer: Message
    expected: Expected
    file: str
    line: int
    row: Row
    group: str | None = None
    slices: Mapping[str, str] = field(default_factory=dict)
    passages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def question(self) -> Question:
        """Question as metrics see it."""
        if self.messages:
            return Question.from_messages(tuple(self.messages), tuple(self.tools))
        return Question(self.text)

    @property
    def question_digest(self) -> str:
        """Digest of the question alone, without the system's message and the expected answer."""
        asked = [message for message in self.messages if message["role"] != "system"]
        return sha256_digest(canonical_json([asked, self.text]))

    def expected_with(self, context_column: str | None) -> Expected:
        """Expected answer with the passages that a side sees."""
        if context_column is None:
            return self.expected
        return replace(self.expected, passages=self.passages.get(context_column, ()))


def make_item(
    row: Row,
    *,
    file: str = "",
    line: int = 0,
    group: str | None = None,
    slices: Mapping[str, str] | None = None,
    passages: Mapping[str, tuple[str, ...]] | None = None,
    reference: Mapping[str, Any] | None = None,
) -> EvaluationItem:
    """Item of a canonical row with an answer.

    Args:
        row: a conversation with a turn of the assistant, or a prompt with its completion.
        file, line: place of the row.
        group: group of the item.
        slices: values by column.
        passages: retrieved passages by column.
        reference: further members of ``Expected``: those of ``REFERENCE_MEMBERS``, or ``human_label``.

    Raises:
        ValueError: nothing is asked, or a call of the expected answer can't be read; the message says what to write.
    """
    messages, text, answer = _parts(row)
    if is_conversational(row) and not any(message["role"] != "system" for message in messages):
        raise ValueError("nothing is asked before it: write the user's message")
    digest = row_digest(row) if not passages else sha256_digest(canonical_json([row, passages]))
    return EvaluationItem(
        digest=digest,
        messages=messages,
        text=text,
        tools=tuple(row.get("tools") or ()),
        answer=answer,
        expected=read_expected(answer, row=line or None, group=group, **(reference or {})),
        file=file,
        line=line,
        row=row,
        group=group,
        slices=slices or {},
        passages=passages or {},
    )


def items_digest(items: Iterable[EvaluationItem]) -> str:
    """Digest of a suite's items, in their order, with all that their scores and tests depend on.

    An item that has more than its row, such as tests of code or a group, is a list of its digest and these members.
    """
    return sha256_digest(canonical_json(list(map(_describe_item, items))))


def _describe_item(item: EvaluationItem) -> Any:
    """Digest of an item, with its group and its reference data where it has any."""
    values = {"group": item.group, **{name: getattr(item.expected, name) for name in REFERENCE_MEMBERS}}
    members = {name: value for name, value in values.items() if value is not None}
    return [item.digest, members] if members else item.digest


def group_repeated_questions(items: Sequence[EvaluationItem]) -> list[EvaluationItem]:
    """The items; those that ask the same question share a group where they have none: they are not independent.

    Questions that differ in case, blanks and punctuation alone are the same.
    """
    keys = [_folded_question(item) for item in items]
    counts = Counter(keys)
    return [
        replace(item, group=key) if item.group is None and counts[key] > 1 else item
        for item, key in zip(items, keys, strict=True)
    ]


def _folded_question(item: EvaluationItem) -> str:
    """Digest of the question without the system's message, case, blanks and punctuation."""
    asked = [
        {**message, "content": _folded(message.get("content"))}
        for message in item.messages
        if message["role"] != "system"
    ]
    return sha256_digest(canonical_json([asked, _folded(item.text)]))


def _folded(content: Any) -> Any:
    """Words and signs of a text; the content itself if it is no text, or has none."""
    return (normalize(content).decode() or content) if isinstance(content, str) else content


def _parts(row: Row) -> tuple[tuple[Message, ...], str, Message]:
    """Conversation before the answer, prompt of plain text, and the answer."""
    if not is_conversational(row):
        return (), row["prompt"], {"role": "assistant", "content": row["completion"]}
    messages: list[Message] = row["messages"] if "messages" in row else [*row["prompt"], *row["completion"]]
    last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
    return tuple(messages[:last]), "", messages[last]
