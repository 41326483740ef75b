"""Which of the rows that were made are kept, by what costs nothing: copies, held-out questions, rewards."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tunesmith_data.rewards.reward_function import RewardFunction
from tunesmith_data.rows.schema.formats import Row
from tunesmith_data.rows.schema.row_texts import answer_text, prompt_text

from .similar_questions import HeldOutQuestions, NearTexts, normal
from .tasks import Draft, last_question


class Fate(StrEnum):
    """What became of a row; together they are all that were considered."""

    KEPT = "rows"
    FILTERED = "filtered"
    DUPLICATE = "duplicates"
    LEAKED = "leaked"
    UNUSABLE = "unusable"


@dataclass(slots=True)
class Tally:
    """How many rows met which fate."""

    counts: Counter[Fate] = field(default_factory=Counter)

    def add(self, fate: Fate, rows: int = 1) -> None:
        """Count some."""
        self.counts[fate] += rows

    def to_dict(self) -> dict[str, int]:
        """By the names that the report has for them."""
        return {str(fate): self.counts[fate] for fate in Fate} | {"made": self.counts.total()}


class Copies:
    """Questions that were seen.

    Args:
        near_copy: likeness from which a question is a copy; None: only the very same is.
    """

    def __init__(self, near_copy: float | None) -> None:
        self._seen: set[str] = set()
        self._near = NearTexts(near_copy) if near_copy else None

    def holds(self, row: Row) -> bool:
        """Whether a row asks what was asked before."""
        if _identity(row) in self._seen:
            return True
        return self._near is not None and self._near.holds_like(last_question(row))

    def add(self, row: Row) -> None:
        """Remember what a row asks."""
        self._seen.add(_identity(row))
        if self._near is not None:
            self._near.add(last_question(row))


class RewardSieve:
    """Rewards, and how much a row needs of them.

    Args:
        functions, weights: the rewards.
        minimum: what the weighted sum has to come to.
        tokenizer: counts the tokens of answers; None where no reward asks.
    """

    def __init__(
        self,
        functions: Sequence[RewardFunction],
        weights: Sequence[float],
        minimum: float,
        tokenizer: Any = None,
    ) -> None:
        self._functions = functions
        self._weights = weights
        self._minimum = minimum
        self._tokenizer = tokenizer

    def passes(self, drafts: Sequence[Draft]) -> list[bool]:
        """Whether each of the rows has enough; a reward that says nothing of a row counts as 0.

        Raises:
            UserError: a reward gives no number.
        """
        if not self._functions or not drafts:
            return [True] * len(drafts)
        arguments = self._arguments(drafts)
        scores = [function(**arguments) for function in self._functions]
        sums = [
            sum(weight * (score or 0.0) for weight, score in zip(self._weights, row, strict=True))
            for row in zip(*scores, strict=True)
        ]
        return [total >= self._minimum for total in sums]

    def _arguments(self, drafts: Sequence[Draft]) -> dict[str, Any]:
        texts = [answer_text(draft.row) for draft in drafts]
        arguments: dict[str, Any] = {
            "prompts": [_prompt(draft.row) for draft in drafts],
            "completions": texts,
            "answer": [draft.answer for draft in drafts],
        }
        if self._tokenizer is not None:
            ids = [self._tokenizer.encode(text, add_special_tokens=False) for text in texts]
            arguments["completion_ids"] = ids
        return arguments


def sift(
    drafts: Sequence[Draft], copies: Copies, held_out: HeldOutQuestions, rewards: RewardSieve, tally: Tally
) -> list[Draft]:
    """The rows that are left, in order; of copies the first."""
    new: list[Draft] = []
    for draft in drafts:
        if held_out.holds(draft.row):
            tally.add(Fate.LEAKED)
        elif copies.holds(draft.row):
            tally.add(Fate.DUPLICATE)
        else:
            copies.add(draft.row)
            new.append(draft)
    passed = rewards.passes(new)
    tally.add(Fate.FILTERED, passed.count(False))
    return [draft for draft, good in zip(new, passed, strict=True) if good]


def _prompt(row: Row) -> Any:
    return row["messages"][:-1] if "messages" in row else row["prompt"]


def _identity(row: Row) -> str:
    """What a row asks, the system's message included."""
    prompt = _prompt(row)
    system = (
        [message["content"] for message in prompt[:1] if message["role"] == "system"]
        if isinstance(prompt, list)
        else []
    )
    return normal("\n".join([*system, prompt_text(row)]))
