"""Generation of rows by a teacher behind an endpoint: task, filter and budget."""

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
    """Task: the teacher answers each prompt."""

    prompts: str


class Paraphrases(Document):
    """Task: the teacher rephrases the question of each row ``per_row`` times; the answer stays."""

    rows: str
    per_row: int = Field(1, ge=1)


class SelfInstruct(Document):
    """Task: the teacher writes ``rows`` new questions with answers (Wang et al. 2023, arXiv:2212.10560)."""

    seeds: str
    rows: int = Field(ge=1)


class Judge(Document):
    """Judge that compares or scores answers; ``endpoint`` None: the teacher itself."""

    endpoint: ChatEndpoint | None = None
    criteria: str | None = None
    max_tokens: int = Field(512, ge=1)


class ScoringJudge(Judge):
    """Judge that gives 1 to 10; rows below ``minimum`` are left out."""

    minimum: float = Field(ge=1, le=10)


class Preferences(Document):
    """Task: the teacher answers each prompt ``answers`` times, and a judge picks the best and the worst."""

    prompts: str
    answers: int = Field(2, ge=2, le=MAX_ANSWERS)
    judge: Judge = Judge()


class GenerationFilter(Document):
    """Filter of generated rows, by a judge's score and by the weighted sum of rewards."""

    judge: ScoringJudge | None = None
    rewards: tuple[Reward, ...] = Field((), max_length=MAX_REWARDS)
    minimum_reward: float = 0.0


class CallBudget(Document):
    """Budget of all calls together; None: no limit. Prices are per million tokens."""

    calls: int | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0)
    amount: Price | None = None
    currency: str | None = Field(None, max_length=3)
    input_price_per_million: Price | None = None
    output_price_per_million: Price | None = None


class Generation(Document):
    """Generation with exactly one task; ``instructions`` are added to each request.

    Attributes:
        temperature, max_tokens: sampling temperature and maximum tokens of the teacher's answers.
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
    budget: CallBudget
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
