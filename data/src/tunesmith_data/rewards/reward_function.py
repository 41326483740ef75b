"""What all kinds of rewards share: the batch they see, and the function that TRL calls."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith_data.failures import UserError

#: Plain text, or a conversation's messages.
Prompt = str | list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Answers of the model that is trained, and what they are answers to.

    Attributes:
        prompts: what was asked.
        texts: what the model answered, without special tokens.
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


#: A number per answer; None where the reward has nothing to say.
Scorer = Callable[[Batch], Sequence[float | None]]


class RewardFunction:
    """A reward as TRL calls it: by the name that its mean is logged under.

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
            texts=[_text_of(completion) for completion in completions],
            answers=arguments.get("answer") or [None] * len(prompts),
            arguments={"prompts": prompts, "completions": completions, **arguments},
        )
        scores = self._score(batch)
        if not isinstance(scores, Sequence) or len(scores) != len(prompts):
            found = f"{len(scores)} numbers" if isinstance(scores, Sequence) else type(scores).__name__
            raise self._wrong(f"gave {found} for {len(prompts)} answers: let it give one number per answer")
        return [self._finite(score) for score in scores]

    def _finite(self, score: object) -> float | None:
        if score is None:
            return None
        try:
            number = float(score)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise self._wrong(f"gave {score!r}, which is no finite number: let it give one for every answer")
        return number

    def _wrong(self, what: str) -> UserError:
        return UserError("RewardInvalid", f"reward {self.__name__} {what}")


def each(score: Callable[[str], float]) -> Scorer:
    """A scorer that looks at each answer's text alone."""
    return lambda batch: [score(text) for text in batch.texts]


def _text_of(completion: Any) -> str:
    """The text of an answer: plain, or the assistant's message."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"])
