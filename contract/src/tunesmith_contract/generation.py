"""Rows that a teacher behind an endpoint makes before prepare: what it is asked, and what it may take."""

from decimal import Decimal
from typing import Annotated, Self

from pydantic import Field, model_validator

from .base import Document
from .methods import MAX_REWARDS, ChatEndpoint, Reward

Price = Annotated[Decimal, Field(ge=0, max_digits=18, allow_inf_nan=False)]

MAX_ANSWERS = 8

#: Tasks, and the member of each that names the rows it starts from.
SOURCE_FIELDS = {
    "answers": "prompts",
    "paraphrases": "rows",
    "self_instruct": "seeds",
    "preferences": "prompts",
}


class Answers(Document):
    """The teacher answers each prompt."""

    prompts: str


class Paraphrases(Document):
    """The teacher says the question of each row in ``per_row`` other ways; the answer stays."""

    rows: str
    per_row: int = Field(1, ge=1)


class SelfInstruct(Document):
    """The teacher writes ``rows`` new questions with answers, after examples (Wang et al. 2023, arXiv:2212.10560)."""

    seeds: str
    rows: int = Field(ge=1)


class Judge(Document):
    """Who compares or scores answers; ``endpoint`` None: the teacher itself."""

    endpoint: ChatEndpoint | None = None
    criteria: str | None = None
    max_tokens: int = Field(512, ge=1)


class ScoringJudge(Judge):
    """A judge that gives 1 to 10; rows below ``minimum`` are left out."""

    minimum: float = Field(ge=1, le=10)


class Preferences(Document):
    """The teacher answers each prompt ``answers`` times, and a judge picks the best and the worst."""

    prompts: str
    answers: int = Field(2, ge=2, le=MAX_ANSWERS)
    judge: Judge = Judge()


class GenerationFilter(Document):
    """Which rows are kept: those that the judge gives enough, and whose rewards come to ``minimum_reward``."""

    judge: ScoringJudge | None = None
    rewards: tuple[Reward, ...] = Field((), max_length=MAX_REWARDS)
    minimum_reward: float = 0.0


class GenerationBudget(Document):
    """What all calls together may take; None: no limit. Prices are per million tokens."""

    calls: int = Field(ge=1)
    tokens: int | None = Field(None, ge=1)
    amount: Price | None = None
    currency: str | None = Field(None, max_length=3)
    input_price_per_million: Price | None = None
    output_price_per_million: Price | None = None


class Generation(Document):
    """Exactly one task; ``instructions`` is what the teacher is told beside.

    Attributes:
        temperature, max_tokens: of the teacher's answers.
        concurrency: requests on their way at the same time.
        minimum_rows: with fewer rows the stage fails.
    """

    endpoint: ChatEndpoint
    answers: Answers | None = None
    paraphrases: Paraphrases | None = None
    self_instruct: SelfInstruct | None = None
    preferences: Preferences | None = None
    instructions: str | None = None
    temperature: float = Field(0.7, ge=0)
    max_tokens: int = Field(1024, ge=1)
    concurrency: int = Field(8, ge=1)
    requests_per_minute: int | None = Field(None, ge=1)
    filter: GenerationFilter = GenerationFilter()
    budget: GenerationBudget
    minimum_rows: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _one_task(self) -> Self:
        if len(self._tasks()) != 1:
            raise ValueError(f"exactly one task has to be set, not {self._tasks() or 'none'}")
        return self

    def _tasks(self) -> list[str]:
        return [name for name in SOURCE_FIELDS if getattr(self, name) is not None]

    @property
    def task(self) -> str:
        """The name of the task that is set, such as ``self_instruct``."""
        return self._tasks()[0]

    @property
    def source(self) -> str:
        """The URI of the rows that generation starts from."""
        uri: str = getattr(getattr(self, self.task), SOURCE_FIELDS[self.task])
        return uri
