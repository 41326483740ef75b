"""Reward function as TRL calls it, and the batch that scorers get."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith_data.failures import UserError

#: Plain text, or a conversation's messages.
Prompt = str | list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Batch of answers with their prompts and reference answers.

    Attributes:
        prompts: prompts of the answers.
        texts: answers of the model, without special tokens.
        answers: the right answers, by the rows; None where a row has none.
        arguments: all of it as TRL hands it to a reward function: ``prompts``, ``completions``,
            ``completion_ids``, the rows' columns, ``trainer_state``, ``log_extra`` and ``log_metric``.
    """

    prompts: Sequence[Prompt]
    texts: Sequence[str]
    answers: Sequence[str | None]
    arguments: Mapping[str, Any]

    @property
    def token_ids(self) -> Sequence[Sequence[int]]:
        """The tokens of each answer, special ones included."""
        ids: Sequence[Sequence[int]] = self.arguments["completion_ids"]
        return ids


#: Function that returns a number per answer; None where the reward does not apply.
Scorer = Callable[[Batch], Sequence[float | None]]


class RewardFunction:
    """Reward function for TRL, with the name under which its mean is logged.

    Args:
        name: the reward's name.
        score: the scorer.
    """

    def __init__(self, name: str, score: Scorer) -> None:
        self.__name__ = name
        self._score = score

    def __call__(
        self, *, prompts: Sequence[Prompt], completions: Sequence[Any], **arguments: Any
    ) -> list[float | None]:
        """A finite number per answer.

        Raises:
            UserError: the scorer gave something else.
        """
        batch = Batch(
            prompts=prompts,
            texts=[
                completion if isinstance(completion, str) else str(completion[-1]["content"])
                for completion in completions
            ],
            answers=arguments.get("answer") or [None] * len(prompts),
            arguments={"prompts": prompts, "completions": completions, **arguments},
        )
        scores = self._score(batch)
        if not isinstance(scores, Sequence) or len(scores) != len(prompts):
            result = f"{len(scores)} numbers" if isinstance(scores, Sequence) else type(scores).__name__
            raise self._wrong(f"gave {result} for {len(prompts)} answers: let it give one number per answer")
        return [self._finite(score) for score in scores]

    def _finite(self, score: object) -> float | None:
        if score is None:
            return None
        try:
            number = float(score)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise self._wrong(
                f"gave {score!r}, which is not a finite number: let it give one for every answer"
            )
        return number

    def _wrong(self, problem: str) -> UserError:
        return UserError("RewardInvalid", f"reward {self.__name__} {problem}")


def score_each_text(score: Callable[[str], float]) -> Scorer:
    """Scorer that scores each answer's text separately."""
    return lambda batch: [score(text) for text in batch.texts]
