"""Generation of rows by a teacher model, before the data is prepared."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import Field
from pydantic.alias_generators import to_camel

from tunesmith_contract.generation import MAX_ANSWERS, SOURCE_FIELDS

from .common import SecretName, StatusModel, StrictModel
from .endpoints import ChatEndpoint
from .filter_rewards import FilterRewards
from .rules import Rule, any_of, exactly_one, is_zero
from .uris import ValidationDataUri
from .values import Currency, DecimalString, Measured, PositiveDecimal, Score, SignedDecimal

_PROMPTS = (
    'The prompts: rows of {"prompt": …}, as text or messages. If rows have answers, the last '
    "answer is not shown to the teacher; filter.rewards may compare with it."
)
_CRITERIA = (
    "Additional criteria in words. The judge always considers correctness and whether "
    "instructions were followed."
)


class SeedRows(StrictModel):
    """Location of the rows that generation starts from."""

    uri: ValidationDataUri = Field(
        description="The location of the rows: pvc://claim/file.jsonl, configmap://name/key, "
        "hf://org/repo/file@revision, s3://bucket/file.jsonl, gs://bucket/file.jsonl or az://container/file.jsonl."
    )
    secret_ref: SecretName | None = Field(
        None,
        description="The Secret with the credentials for uri, with the same keys as dataset.train.secretRef. If "
        "unset, hf:// is read with baseModel.secretRef.",
    )


class Answers(StrictModel):
    """A task in which the teacher answers each prompt."""

    prompts: SeedRows = Field(description=_PROMPTS)


class Paraphrases(StrictModel):
    """A task in which the teacher rewords the question of each row and keeps its answer."""

    rows: SeedRows = Field(
        description="Rows with a question and an answer. They are not part of the generated rows: to train on "
        "them as well, also name them in train."
    )
    per_row: int = Field(3, ge=1, le=20, description="The number of rewordings of each question.")


class SelfInstruct(StrictModel):
    """A task in which the teacher writes new questions with answers, guided by a few seed rows at a time."""

    seeds: SeedRows = Field(
        description="Example rows of questions with answers; some tens of them are enough. Each request shows "
        "five, drawn with hyperparameters.seed."
    )
    rows: int = Field(
        ge=1,
        le=100_000,
        description="The number of rows to generate. Near copies of seeds and of each other do not count.",
    )


class Judge(StrictModel):
    """A model that judges answers."""

    endpoint: ChatEndpoint | None = Field(
        None,
        description="The endpoint of the judge. A model of another family than the teacher is best. If unset, the"
        " teacher is the judge.",
    )
    criteria: Annotated[str, Field(max_length=4096)] | None = Field(None, description=_CRITERIA)
    max_tokens: int = Field(
        512,
        ge=1,
        le=1_048_576,
        description="The maximum length of a verdict in tokens. Reasoning models need more.",
    )


class ScoringJudge(Judge):
    """A judge that gives each row a score from 1 to 10."""

    minimum: Score = Field(description='The lowest score of a row that is kept, such as "7".')


class Preferences(StrictModel):
    """A task in which the teacher answers each prompt several times and a judge picks the best and the worst answer."""

    prompts: SeedRows = Field(description=_PROMPTS)
    answers: int = Field(2, ge=2, le=MAX_ANSWERS, description="The number of answers to each prompt.")
    judge: Judge = Field(
        Judge(),
        description="The judge. It compares each pair in both orders; pairs with contradictory verdicts are "
        "dropped.",
    )


class GenerateFilter(StrictModel):
    """Criteria for keeping generated rows."""

    rules = (
        Rule(
            "has(self.judge) || has(self.rewards)",
            'filter needs a criterion: write judge: {minimum: "7"}, or rewards with minimumReward, or both.',
        ),
        Rule(
            "has(self.rewards) == has(self.minimumReward)",
            "rewards and minimumReward go together: rows are kept whose weighted sum of rewards is at "
            'least minimumReward, such as minimumReward: "1".',
            field=".minimumReward",
        ),
    )

    judge: ScoringJudge | None = Field(
        None, description="A judge that gives each row a score from 1 to 10. It takes one call per row."
    )
    rewards: FilterRewards | None = Field(
        None,
        description="Rewards as in method.grpo.rewards, except reward models. They do not use calls of the "
        "budget.",
    )
    minimum_reward: SignedDecimal | None = Field(
        None, description='The lowest weighted sum of the rewards of a row that is kept, such as "1".'
    )


class GenerateBudget(StrictModel):
    """Limits on all calls to teacher and judges together, over all attempts.

    No limit is ever exceeded.
    """

    rules = (
        Rule(
            "has(self.inputPricePerMillion) == has(self.outputPricePerMillion) && "
            "has(self.inputPricePerMillion) == has(self.currency)",
            'Set both prices and the currency together: inputPricePerMillion: "0.15", '
            'outputPricePerMillion: "0.60" and currency: EUR.',
        ),
        Rule(
            "!has(self.amount) || has(self.inputPricePerMillion)",
            "amount needs prices: set inputPricePerMillion, outputPricePerMillion and currency.",
            field=".amount",
        ),
    )

    calls: int = Field(
        ge=1,
        le=10_000_000,
        description="The maximum number of requests. Requests that the endpoint rejects with HTTP 429 do not "
        "count.",
    )
    tokens: Annotated[int, Field(ge=1, le=1_000_000_000_000)] | None = Field(
        None,
        description="The maximum number of tokens of requests and answers, as reported by the endpoints. If "
        "unset, there is no limit.",
    )
    amount: PositiveDecimal | None = Field(
        None, description='The maximum cost by the prices below, such as "5.00". If unset, there is no limit.'
    )
    currency: Currency | None = Field(None, description="The currency of the prices, such as EUR.")
    input_price_per_million: DecimalString | None = Field(
        None,
        description='The price of a million tokens of requests at the most expensive endpoint, such as "0.15".',
    )
    output_price_per_million: DecimalString | None = Field(
        None,
        description='The price of a million tokens of answers at the most expensive endpoint, such as "0.60".',
    )


TASKS = tuple(SOURCE_FIELDS)


class Generate(StrictModel):
    """Rows that a teacher model generates before the data is prepared. Exactly one task must be set."""

    rules = (
        exactly_one(
            TASKS,
            "Set exactly one task: answers, paraphrases, selfInstruct or preferences, such as answers: "
            "{prompts: {uri: pvc://data/prompts.jsonl}}.",
        ),
        Rule(
            f"!has(self.preferences) || !{is_zero('self.temperature')}",
            "preferences compares different answers to one prompt: write a temperature above 0, such as "
            '"0.7".',
            field=".temperature",
        ),
    )

    endpoint: ChatEndpoint = Field(description="The endpoint of the teacher, hosted or in the cluster.")
    answers: Answers | None = Field(None, description="The teacher answers each prompt.")
    paraphrases: Paraphrases | None = Field(
        None, description="The teacher rewords the question of each row; the answer stays the same."
    )
    self_instruct: SelfInstruct | None = Field(
        None, description="The teacher writes new questions with answers, guided by seed rows."
    )
    preferences: Preferences | None = Field(
        None,
        description="The teacher answers each prompt several times; a judge picks the best and the worst answer.",
    )
    instructions: Annotated[str, Field(max_length=8192)] | None = Field(
        None,
        description="A system prompt for the teacher, such as the style of its answers. It is not part of the "
        "rows, so the tuned model learns to answer this way without the prompt.",
    )
    temperature: DecimalString = Field(
        "0.7", description="The sampling temperature of the teacher. Higher values give more varied answers."
    )
    max_tokens: int = Field(
        1024,
        ge=1,
        le=1_048_576,
        description="The maximum length of an answer in tokens. Answers that reach it are dropped.",
    )
    concurrency: int = Field(8, ge=1, le=64, description="The maximum number of simultaneous requests.")
    requests_per_minute: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None,
        description="The maximum number of requests per minute to each endpoint. If unset, there is no limit. "
        "Retry-After headers are always obeyed.",
    )
    filter: GenerateFilter | None = Field(
        None,
        description="Criteria for keeping generated rows. If unset, all rows are kept except duplicates and rows "
        "of held-out sets.",
    )
    budget: GenerateBudget = Field(
        description="Limits on all calls together. When one is reached, the job continues with the rows generated"
        " so far."
    )
    minimum_rows: int = Field(
        1,
        ge=1,
        le=10_000_000,
        description="The minimum number of generated rows. The job fails if there are fewer.",
    )

    @property
    def task(self) -> str:
        """Name of the task that is set, such as ``self_instruct``."""
        return next(name for name in TASKS if getattr(self, name) is not None)

    @property
    def source(self) -> SeedRows:
        """Rows that generation starts from."""
        rows: SeedRows = getattr(getattr(self, self.task), SOURCE_FIELDS[self.task])
        return rows

    @property
    def source_field(self) -> str:
        """Path of ``source`` below this object, such as ``selfInstruct.seeds``."""
        return f"{to_camel(self.task)}.{SOURCE_FIELDS[self.task]}"


_ANSWERED = ("sft", "grpo", "rloo", "distillation")
_PAIRED = ("dpo", "kto", "reward")

#: Methods that can learn from the rows of each task.
LEARNED_TASKS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "answers": _ANSWERED,
        "paraphrases": (*_ANSWERED, *_PAIRED),
        "self_instruct": _ANSWERED,
        "preferences": _PAIRED,
    }
)


def _task_rule(task: str, methods: tuple[str, ...]) -> Rule:
    name = to_camel(task)
    learns = " || ".join(f"has(self.method.{method})" for method in methods)
    return Rule(
        f"!has(self.dataset.generate) || !has(self.dataset.generate.{name}) || {learns}",
        f"generate.{name} makes rows for {any_of(methods)}: choose one of these methods, or another task.",
        field=".dataset.generate",
    )


GENERATE_RULES = tuple(_task_rule(task, methods) for task, methods in LEARNED_TASKS.items())


class GenerationStatus(StatusModel):
    """Progress and result of data generation."""

    rows: int = Field(0, ge=0, description="The number of rows that were kept.")
    made: int | None = Field(None, ge=0, description="The number of rows that were considered.")
    filtered: int | None = Field(
        None, ge=0, description="The number of rows that a judge or rewards rejected."
    )
    duplicates: int | None = Field(
        None, ge=0, description="The number of rows that repeat another row or a seed."
    )
    leaked: int | None = Field(
        None, ge=0, description="The number of rows whose question is in a held-out set."
    )
    unusable: int | None = Field(
        None,
        ge=0,
        description="The number of answers that were refusals, cut off, or unusable for another reason.",
    )
    calls: int = Field(0, ge=0, description="The number of requests so far, over all attempts.")
    prompt_tokens: int = Field(0, ge=0, description="The number of tokens of the requests.")
    completion_tokens: int = Field(0, ge=0, description="The number of tokens of the answers.")
    amount: Measured | None = Field(None, description="The cost by the prices of the budget.")
    currency: str | None = Field(None, max_length=3, description="The currency of the amount.")
    uri: str | None = Field(
        None, max_length=512, description="The location of the rows. They are never deleted by the operator."
    )
    digest: str | None = Field(None, max_length=71, description="The digest of the rows.")
    manifest: str | None = Field(
        None,
        max_length=512,
        description="The location of the manifest with the origin of the rows: teacher, prompts, parameters, "
        "counts and cost. It is never deleted by the operator.",
    )
    warnings: Annotated[tuple[Annotated[str, Field(max_length=200)], ...], Field(max_length=2)] = Field(
        (), description="Findings that deserve attention but do not fail the job."
    )
