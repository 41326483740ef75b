"""Filters for generated rows: duplicates, held-out questions, rewards."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tunesmith_data.rewards.reward_function import RewardFunction
from tunesmith_data.rows.schema.formats import Row
from tunesmith_data.rows.schema.row_texts import answer_text, prompt_text

from .similar_questions import HeldOutQuestions, SimilarTexts, normalize_words
from .tasks import DraftRow, last_question


class RowOutcome(StrEnum):
    """Outcome of a row; the outcomes add up to all rows considered."""

    KEPT = "rows"
    FILTERED = "filtered"
    DUPLICATE = "duplicates"
    LEAKED = "leaked"
    UNUSABLE = "unusable"


@dataclass(slots=True)
class OutcomeCounts:
    """Number of rows per outcome."""

    counts: Counter[RowOutcome] = field(default_factory=Counter)

    def add(self, outcome: RowOutcome, rows: int = 1) -> None:
        """Add rows to an outcome."""
        self.counts[outcome] += rows

    def to_dict(self) -> dict[str, int]:
        """Counts by the names of the report's fields."""
        return {str(outcome): self.counts[outcome] for outcome in RowOutcome} | {"made": self.counts.total()}


class SeenQuestions:
    """Set of earlier questions, with near duplicates.

    Args:
        similarity_limit: similarity from which a question is a duplicate; None: only an equal one is.
    """

    def __init__(self, similarity_limit: float | None) -> None:
        self._seen: set[str] = set()
        self._near = SimilarTexts(similarity_limit) if similarity_limit else None

    def contains(self, row: Row) -> bool:
        """True if a row repeats an earlier question."""
        if _identity(row) in self._seen:
            return True
        return self._near is not None and self._near.contains_similar(last_question(row))

    def add(self, row: Row) -> None:
        """Add a row's question."""
        self._seen.add(_identity(row))
        if self._near is not None:
            self._near.add(last_question(row))


class RewardFilter:
    """Rewards and the minimum that a row needs.

    Args:
        functions, weights: the rewards.
        minimum: minimum of the weighted sum.
        tokenizer: counts the tokens of answers; None if no reward needs it.
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

    def passes(self, drafts: Sequence[DraftRow]) -> list[bool]:
        """True if each row reaches the minimum; a missing reward counts as 0.

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

    def _arguments(self, drafts: Sequence[DraftRow]) -> dict[str, Any]:
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


def filter_drafts(
    drafts: Sequence[DraftRow],
    seen_questions: SeenQuestions,
    held_out: HeldOutQuestions,
    rewards: RewardFilter,
    outcomes: OutcomeCounts,
) -> list[DraftRow]:
    """Rows that pass all filters, in order; of duplicates the first."""
    new: list[DraftRow] = []
    for draft in drafts:
        if held_out.contains(draft.row):
            outcomes.add(RowOutcome.LEAKED)
        elif seen_questions.contains(draft.row):
            outcomes.add(RowOutcome.DUPLICATE)
        else:
            seen_questions.add(draft.row)
            new.append(draft)
    passed = rewards.passes(new)
    outcomes.add(RowOutcome.FILTERED, passed.count(False))
    return [draft for draft, good in zip(new, passed, strict=True) if good]


def _prompt(row: Row) -> Any:
    return row["messages"][:-1] if "messages" in row else row["prompt"]


def _identity(row: Row) -> str:
    """Normalized prompt of a row, including the system message."""
    prompt = _prompt(row)
    system = (
        [message["content"] for message in prompt[:1] if message["role"] == "system"]
        if isinstance(prompt, list)
        else []
    )
    return normalize_words("\n".join([*system, prompt_text(row)]))
