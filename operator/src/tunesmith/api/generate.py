"""Rows that a teacher makes before the data is prepared."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field

from tunesmith_contract.generation import MAX_ANSWERS, SOURCE_FIELDS

from .common import SecretName, StatusModel, StrictModel
from .endpoints import ChatEndpoint
from .filter_rewards import FilterRewards
from .rules import Rule, exactly_one, is_zero
from .uris import ValidationDataUri
from .values import Currency, DecimalString, Measured, PositiveDecimal, Score, SignedDecimal

_PROMPTS = (
    'Prompts: rows of {"prompt": …}, text or messages. Of rows with answers, the last answer is left out; '
    "filter.rewards may compare with it."
)
_CRITERIA = "What the judge looks at, in words, beside being right and doing as asked."


class SeedRows(StrictModel):
    """Rows that generation starts from, and the Secret that opens them."""

    uri: ValidationDataUri = Field(
        description="Where the rows lie: pvc://claim/file.jsonl, configmap://name/key, hf://org/repo/file@revision, "
        "s3://bucket/file.jsonl or gs://bucket/file.jsonl."
    )
    secret_ref: SecretName | None = Field(
        None,
        description="Secret that opens it, with the keys of dataset.train.secretRef. Absent: hf:// is opened with "
        "baseModel.secretRef.",
    )


class Answers(StrictModel):
    """The teacher answers each prompt."""

    prompts: SeedRows = Field(description=_PROMPTS)


class Paraphrases(StrictModel):
    """The teacher says each row's question in other words; the answer stays."""

    rows: SeedRows = Field(
        description="Rows with a question. The rows themselves are not among those that are made: name them in train, "
        "too."
    )
    per_row: int = Field(3, ge=1, le=20, description="How many other ways of each question.")


class SelfInstruct(StrictModel):
    """The teacher writes new questions with answers, after the example of a few seeds at a time."""

    seeds: SeedRows = Field(
        description="Rows of questions with answers, some tens of them: each request shows five, drawn by "
        "hyperparameters.seed."
    )
    rows: int = Field(
        ge=1,
        le=100_000,
        description="How many rows are wanted. Near copies of seeds and of each other don't count.",
    )


class Judge(StrictModel):
    """Who judges."""

    endpoint: ChatEndpoint | None = Field(
        None,
        description="Another model than the teacher, best of another family. Absent: the teacher itself.",
    )
    criteria: Annotated[str, Field(max_length=4096)] | None = Field(None, description=_CRITERIA)
    max_tokens: int = Field(
        512,
        ge=1,
        le=1_048_576,
        description="Where a verdict is cut off, in tokens. Models that think need more.",
    )


class ScoringJudge(Judge):
    """A judge that gives each row a number from 1 to 10."""

    minimum: Score = Field(description='The number from which a row is kept, such as "7".')


class Preferences(StrictModel):
    """The teacher answers each prompt several times, and a judge picks the best and the worst answer."""

    prompts: SeedRows = Field(description=_PROMPTS)
    answers: int = Field(2, ge=2, le=MAX_ANSWERS, description="How many answers to each prompt.")
    judge: Judge = Field(
        Judge(),
        description="Who picks. It is asked in both orders; pairs of which it says different things are left out.",
    )


class GenerateFilter(StrictModel):
    """Which of the rows that were made are kept."""

    rules = (
        Rule(
            "has(self.judge) || has(self.rewards)",
            'Say what filter goes by: judge: {minimum: "7"}, or rewards with minimumReward, or both.',
            lambda written: written.judge is not None or written.rewards is not None,
        ),
        Rule(
            "has(self.rewards) == has(self.minimumReward)",
            "rewards and minimumReward go together: rows are kept whose rewards come to minimumReward, such as "
            'minimumReward: "1".',
            lambda written: (written.rewards is None) == (written.minimum_reward is None),
            ".minimumReward",
        ),
    )

    judge: ScoringJudge | None = Field(
        None, description="A model that gives each row 1 to 10. It costs a call for each row."
    )
    rewards: FilterRewards | None = Field(
        None,
        description="Rewards as in method.grpo.rewards, but reward models. They cost no call of the budget.",
    )
    minimum_reward: SignedDecimal | None = Field(
        None, description='What the weighted sum of the rewards has to come to, such as "1".'
    )


class GenerateBudget(StrictModel):
    """What all calls of teacher and judges together may take, over all attempts. No limit is ever passed."""

    rules = (
        Rule(
            "has(self.inputPricePerMillion) == has(self.outputPricePerMillion) && "
            "has(self.inputPricePerMillion) == has(self.currency)",
            'Prices come together: inputPricePerMillion: "0.15", outputPricePerMillion: "0.60" and currency: EUR.',
            lambda budget: (
                len(
                    {
                        each is None
                        for each in (budget.input_price_per_million, budget.output_price_per_million)
                    }
                )
                == 1
                and (budget.input_price_per_million is None) == (budget.currency is None)
            ),
        ),
        Rule(
            "!has(self.amount) || has(self.inputPricePerMillion)",
            "amount needs prices: write inputPricePerMillion, outputPricePerMillion and currency.",
            lambda budget: budget.amount is None or budget.input_price_per_million is not None,
            ".amount",
        ),
    )

    calls: int = Field(
        ge=1, le=10_000_000, description="Requests. Those that are turned away (429) don't count."
    )
    tokens: Annotated[int, Field(ge=1, le=1_000_000_000_000)] | None = Field(
        None, description="Tokens of requests and answers, as the endpoints count them. Absent: no limit."
    )
    amount: PositiveDecimal | None = Field(
        None, description='Money by the prices below, such as "5.00". Absent: no limit.'
    )
    currency: Currency | None = Field(None, description="The prices' currency, such as EUR.")
    input_price_per_million: DecimalString | None = Field(
        None, description='Price of a million tokens of requests, of the dearest endpoint, such as "0.15".'
    )
    output_price_per_million: DecimalString | None = Field(
        None, description='Price of a million tokens of answers, of the dearest endpoint, such as "0.60".'
    )


TASKS = tuple(SOURCE_FIELDS)


class Generate(StrictModel):
    """Rows that a teacher makes before the data is prepared. Exactly one task."""

    rules = (
        exactly_one(
            TASKS,
            "Choose one task: answers, paraphrases, selfInstruct or preferences, such as answers: {prompts: {uri: "
            "pvc://data/prompts.jsonl}}.",
        ),
        Rule(
            f"!has(self.preferences) || !{is_zero('self.temperature')}",
            'Answers that are all the same give nothing to prefer: write a temperature above 0, such as "0.7".',
            lambda generate: generate.preferences is None or float(generate.temperature) > 0,
            ".temperature",
        ),
    )

    endpoint: ChatEndpoint = Field(description="The teacher, hosted or in the cluster.")
    answers: Answers | None = Field(None, description="The teacher answers each prompt.")
    paraphrases: Paraphrases | None = Field(
        None, description="The teacher says each row's question in other words; the answer stays."
    )
    self_instruct: SelfInstruct | None = Field(
        None, description="The teacher writes new questions with answers, after the example of seeds."
    )
    preferences: Preferences | None = Field(
        None,
        description="The teacher answers each prompt several times; a judge picks the best and the worst.",
    )
    instructions: Annotated[str, Field(max_length=8192)] | None = Field(
        None,
        description="What the teacher is told beside, such as how to answer. It is no part of the rows: what is "
        "learned is to answer so without being told.",
    )
    temperature: DecimalString = Field("0.7", description="How varied the teacher's answers are.")
    max_tokens: int = Field(
        1024,
        ge=1,
        le=1_048_576,
        description="Where an answer of the teacher is cut off, in tokens; one that was is left out.",
    )
    concurrency: int = Field(8, ge=1, le=64, description="Requests on their way at the same time.")
    requests_per_minute: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None,
        description="How many requests an endpoint gets in a minute, at most. Absent: no limit. Retry-After is waited "
        "for either way.",
    )
    filter: GenerateFilter | None = Field(
        None, description="Which rows are kept. Absent: all but copies and rows of held-out sets."
    )
    budget: GenerateBudget = Field(
        description="What all calls together may take. When it is used up, the job goes on with the rows there are."
    )
    minimum_rows: int = Field(1, ge=1, le=10_000_000, description="With fewer rows than this the job fails.")

    @property
    def task(self) -> str:
        """Name of the task that is set, such as ``self_instruct``."""
        return next(name for name in TASKS if getattr(self, name) is not None)

    @property
    def source(self) -> SeedRows:
        """The rows that generation starts from."""
        rows: SeedRows = getattr(getattr(self, self.task), SOURCE_FIELDS[self.task])
        return rows

    @property
    def source_field(self) -> str:
        """The path of ``source`` below this."""
        return f"{_CAMEL.get(self.task, self.task)}.{SOURCE_FIELDS[self.task]}"


_CAMEL = {"self_instruct": "selfInstruct"}

_ANSWERED = ("sft", "grpo", "rloo", "distillation")
_PAIRED = ("dpo", "kto", "reward")

#: Which methods learn from what each task makes.
LEARNED_TASKS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "answers": _ANSWERED,
        "paraphrases": (*_ANSWERED, *_PAIRED),
        "self_instruct": _ANSWERED,
        "preferences": _PAIRED,
    }
)


def _learned(task: str, methods: tuple[str, ...]) -> Rule:
    name = _CAMEL.get(task, task)
    learns = " || ".join(f"has(self.method.{method})" for method in methods)
    some = " or ".join(filter(None, (", ".join(methods[:-1]), methods[-1])))

    def check(spec: Any) -> bool:
        generate = spec.dataset.generate
        return generate is None or getattr(generate, task) is None or spec.method.key in methods

    return Rule(
        f"!has(self.dataset.generate) || !has(self.dataset.generate.{name}) || {learns}",
        f"generate.{name} makes rows for {some}: choose one of these methods, or another task.",
        check,
        ".dataset.generate",
    )


GENERATE_RULES = tuple(_learned(task, methods) for task, methods in LEARNED_TASKS.items())


class GenerationStatus(StatusModel):
    """What a teacher has made."""

    rows: int = Field(0, ge=0, description="Rows that were kept.")
    made: int | None = Field(None, ge=0, description="Rows that were considered.")
    filtered: int | None = Field(None, ge=0, description="Rows that a judge or rewards turned down.")
    duplicates: int | None = Field(None, ge=0, description="Rows that repeat another one, or a seed.")
    leaked: int | None = Field(None, ge=0, description="Rows whose question is one of a held-out set.")
    unusable: int | None = Field(None, ge=0, description="Answers that were refused, cut off or of no use.")
    calls: int = Field(0, ge=0, description="Requests so far, over all attempts.")
    prompt_tokens: int = Field(0, ge=0, description="Tokens of the requests.")
    completion_tokens: int = Field(0, ge=0, description="Tokens of the answers.")
    amount: Measured | None = Field(None, description="What that costs by the budget's prices.")
    currency: str | None = Field(None, max_length=3, description="The amount's currency.")
    uri: str | None = Field(None, max_length=512, description="The rows. They stay.")
    digest: str | None = Field(None, max_length=71, description="Their digest.")
    manifest: str | None = Field(
        None,
        max_length=512,
        description="How they were made: teacher, words, parameters, counts, cost. It stays.",
    )
    warnings: Annotated[tuple[Annotated[str, Field(max_length=200)], ...], Field(max_length=2)] = Field(
        (), description="What to look at, though it stops nothing."
    )
