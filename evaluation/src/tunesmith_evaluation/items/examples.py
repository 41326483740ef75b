"""Worked examples, drawn from rows that are not tested."""

from collections.abc import Iterator, Sequence

from tunesmith_contract.base import canonical_json
from tunesmith_data.failures import UserError
from tunesmith_data.rows.schema.formats import Row, is_conversational
from tunesmith_data.rows.table.split import content_order

from .item import EvaluationItem, make_item
from .overlap import asked_row, overlapping_rows

#: Candidates that are compared with the items at a time.
_CANDIDATES = 1_000


class ExamplePool:
    """Rows from which worked examples are drawn, in an order that depends on their content and the seed alone.

    Args:
        rows: rows in canonical form, such as prepared training rows; those without an answer are left out.
        tested: the items of all suites, also those that are not asked: none is ever an example.
        seed: seed of the order.
    """

    def __init__(self, rows: Sequence[Row], tested: Sequence[EvaluationItem], seed: int) -> None:
        self._rows = rows
        self._tested = tested
        self._seed = seed

    def draw(self, count: int, items: Sequence[EvaluationItem]) -> list[EvaluationItem]:
        """The first examples of the order; fewer examples are the beginning of more.

        No example asks a tested question, whatever the system's message, or nearly one; no two ask the same. Examples
        with tools are drawn only for items that all have these tools. Plain text is shown to conversations as a turn of
        the user, conversations are no examples for plain text.

        Args:
            count: number of examples.
            items: the items of a suite, before which they are shown.

        Raises:
            UserError: the pool has too few rows that are not tested.
        """
        if count == 0:
            return []
        chosen: dict[str, EvaluationItem] = {}
        for example in self._untested(items):
            chosen.setdefault(example.question_digest, example)
            if len(chosen) == count:
                return list(chosen.values())
        form = "conversations or texts" if _are_conversations(items) else "texts"
        message = (
            f"fewShot asks for {count} examples, but fewShotFrom holds {len(chosen)} {form} with the tools of the "
            "items that are not tested: lower fewShot or add rows"
        )
        raise UserError("TooFewExamples", message)

    def _untested(self, items: Sequence[EvaluationItem]) -> Iterator[EvaluationItem]:
        conversations, tools = _are_conversations(items), _common_tools(items)
        usable = [
            make_item(row)
            for row in filter(None, map(_answered, self._rows))
            if conversations or not is_conversational(row)
        ]
        candidates = sorted(
            (example for example in usable if _tools(example) <= tools),
            key=lambda example: content_order({"item": example.digest}, self._seed),
        )
        tested = {item.question_digest for item in self._tested}
        for start in range(0, len(candidates), _CANDIDATES):
            some = candidates[start : start + _CANDIDATES]
            similar = overlapping_rows(self._tested, [asked_row(candidate) for candidate in some])
            for number, candidate in enumerate(some):
                if number not in similar and candidate.question_digest not in tested:
                    yield candidate


def _are_conversations(items: Sequence[EvaluationItem]) -> bool:
    return all(item.messages for item in items)


def _common_tools(items: Sequence[EvaluationItem]) -> set[bytes]:
    """Tools that all items have."""
    return set.intersection(*map(_tools, items)) if items else set()


def _tools(item: EvaluationItem) -> set[bytes]:
    return {canonical_json(tool) for tool in item.tools}


def _answered(row: Row) -> Row | None:
    """Training row as a row with an answer; None if it has none, or a bad one."""
    if "messages" in row:
        roles = [message["role"] for message in row["messages"]]
        return row if "assistant" in roles[1:] and roles[-1] == "assistant" else None
    if row.get("label") is False or "prompt" not in row:
        return None
    answer = row.get("completion", row.get("chosen", row.get("answer")))
    if not answer:
        return None
    if isinstance(row["prompt"], list) and isinstance(answer, str):
        answer = [{"role": "assistant", "content": answer}]
    tools = {"tools": row["tools"]} if row.get("tools") else {}
    return {"prompt": row["prompt"], "completion": answer, **tools}
