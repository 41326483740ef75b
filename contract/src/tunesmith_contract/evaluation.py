"""Evaluation: the sides, suites, metrics and gates of a comparison, as pods and the console command read them."""

import re
from decimal import ROUND_DOWN, Decimal
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from .base import Digest, Document
from .generation import CallBudget, Price
from .layout import DATA_REPORT_FILE, DATA_REPORT_FOLDER, TRAIN_FILE, VALIDATION_FILE
from .methods import ChatEndpoint, Name
from .sources import ArtifactSource, DataFormat

MAX_SUITES = 8
MAX_METRICS = 8
#: Results of all suites together: more do not fit into the message that a pod leaves.
MAX_RESULTS = 16
MAX_GATES = 16
MAX_REFERENCES = 3
MAX_REPEATS = 32
#: Least number of items that a gate may be content with.
FEWEST_ITEMS = 4
#: Jobs of one side's lineage, each of which started from the artifact of the next, whose rows are compared with items.
MAX_LINEAGE = 4

#: Name of the suite on safety that every comparison has unless it is switched off.
SAFETY_SUITE = "safety"


class Metric(StrEnum):
    """Metric that scores an answer."""

    EXACT_MATCH = "ExactMatch"
    CONTAINS = "Contains"
    TOKEN_F1 = "TokenF1"
    ROUGE_L = "ROUGEL"
    BLEU = "BLEU"
    CHRF = "CHRF"
    PERPLEXITY = "Perplexity"
    BITS_PER_BYTE = "BitsPerByte"
    REGEX = "Regex"
    JSON_VALID = "JSONValid"
    JSON_SCHEMA = "JSONSchema"
    JSON_FIELDS = "JSONFields"
    XML_VALID = "XMLValid"
    NUMERIC = "Numeric"
    ACCURACY = "Accuracy"
    MACRO_F1 = "MacroF1"
    EMBEDDING_SIMILARITY = "EmbeddingSimilarity"
    TOOL_CALL = "ToolCall"
    CONSISTENCY = "Consistency"
    PASS_AT_K = "PassAtK"
    LATENCY = "Latency"
    TOKENS = "Tokens"
    CODE_TESTS = "CodeTests"
    JUDGE = "Judge"
    FAITHFULNESS = "Faithfulness"
    CONTEXT_RECALL = "ContextRecall"
    SAFE_ANSWER = "SafeAnswer"
    TASK_SCORE = "TaskScore"
    CONTAINER_SCORE = "ContainerScore"


class Expect(StrEnum):
    """Expectation of a gate."""

    BETTER = "Better"
    NOT_WORSE = "NotWorse"


class Tier(StrEnum):
    """Weight of a gate: a blocking one decides the verdict, an advisory one is reported only."""

    BLOCKING = "Blocking"
    ADVISORY = "Advisory"


class Engine(StrEnum):
    """Program that answers for models whose weights the pod reads."""

    TRANSFORMERS = "Transformers"
    VLLM = "VLLM"


class JudgeMode(StrEnum):
    """Question to a judge: one answer's points, or the better of two answers."""

    POINTS = "Points"
    PAIRS = "Pairs"


class TokenPrices(Document):
    """Prices of an endpoint per million tokens."""

    prompt: Price
    completion: Price
    currency: str = Field(max_length=3)


class ModelUse(Document):
    """Use of the model, as people state it, for advice on fine-tuning; None: not stated.

    Attributes:
        bar: score that is needed.
        examples: number of training examples at hand.
        latency_budget: seconds that an answer may take.
        requests_per_month: number of requests that are expected.
        training_cost: cost of a training run, in the currency of the prices.
        prices: prices at which the tuned model will be served.
    """

    bar: float | None = Field(None, ge=0)
    examples: int | None = Field(None, ge=0)
    latency_budget: float | None = Field(None, ge=0)
    requests_per_month: int | None = Field(None, ge=1)
    training_cost: float | None = Field(None, ge=0)
    prices: TokenPrices | None = None


class EndpointBudget(Document):
    """Limits on all requests to an endpoint, over all attempts; None: no limit. ``amount`` needs prices."""

    calls: int | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0)
    amount: Price | None = None

    def part(self, share: int, whole: int) -> "EndpointBudget":
        """Part of the budget for ``share`` of ``whole`` requests; all parts together are at most the budget."""
        return EndpointBudget(
            calls=None if self.calls is None else self.calls * share // whole,
            tokens=None if self.tokens is None else self.tokens * share // whole,
            amount=None
            if self.amount is None
            else (self.amount * share / whole).quantize(Decimal("1e-9"), ROUND_DOWN),
        )


class PricedEndpoint(ChatEndpoint):
    """Model behind an endpoint that serves the OpenAI API, with its prices and limits on spending."""

    prices: TokenPrices | None = None
    budget: EndpointBudget | None = None

    @model_validator(mode="after")
    def _check_budget(self) -> Self:
        if self.budget is not None and self.budget.amount is not None and self.prices is None:
            raise ValueError("budget.amount needs prices: add prices, or limit calls or tokens")
        return self

    @property
    def call_budget(self) -> CallBudget | None:
        """The budget with its prices; None without a budget."""
        if self.budget is None:
            return None
        prices = self.prices
        return CallBudget(
            calls=self.budget.calls,
            tokens=self.budget.tokens,
            amount=self.budget.amount,
            currency=prices and prices.currency,
            input_price_per_million=prices and prices.prompt,
            output_price_per_million=prices and prices.completion,
        )

    def with_part(self, share: int, whole: int) -> "PricedEndpoint":
        """The endpoint with the budget for ``share`` of ``whole`` requests."""
        return self.model_copy(update={"budget": self.budget and self.budget.part(share, whole)})


class TextMatch(Document):
    """Differences that the comparison of two texts ignores."""

    ignore_case: bool = False
    ignore_punctuation: bool = False


class NumericTolerance(Document):
    """Largest difference of two equal numbers: the larger of an absolute one and a share of the expected number."""

    absolute: float = Field(0.0, ge=0, allow_inf_nan=False)
    relative: float = Field(0.0, ge=0, allow_inf_nan=False)


class EvaluationJudge(Document):
    """Judge of answers: ``rubric`` None asks for correctness beside the expected answer."""

    endpoint: PricedEndpoint
    mode: JudgeMode = JudgeMode.POINTS
    rubric: str | None = None
    max_tokens: int = Field(1024, ge=1)
    human_label_column: str | None = None


class MetricSettings(Document):
    """One metric of a suite. ``name`` distinguishes two metrics of one type; gates refer to ``key``.

    ``task_metric`` is a harness task's metric, as ``name`` or ``name,filter``; None for its first one.
    """

    type: Metric
    name: Name | None = None
    text: TextMatch | None = None
    pattern: str | None = None
    json_schema: str | None = None
    tolerance: NumericTolerance | None = None
    labels: tuple[str, ...] = ()
    pass_at_k: int | None = Field(None, ge=1)
    code_timeout_seconds: float | None = Field(None, gt=0)
    judge: EvaluationJudge | None = None
    embedding: ChatEndpoint | None = None
    task_metric: str | None = Field(None, max_length=128)

    @property
    def key(self) -> str:
        """Name of the metric in gates and results."""
        return self.name or str(self.type)


class Decoding(Document):
    """Decoding of all sides; none of it comes from a model's own configuration.

    Greedy where ``temperature`` is 0. ``stop``: strings that end an answer, beside the model's end tokens.
    """

    max_new_tokens: int = Field(256, ge=1)
    temperature: float = Field(0.0, ge=0, allow_inf_nan=False)
    top_p: float = Field(1.0, gt=0, le=1)
    stop: tuple[str, ...] = ()


class HarnessTask(Document):
    """Task of lm-evaluation-harness, from data that lies in a file or folder.

    Attributes:
        task: name of the task, or of one that ``include`` defines.
        data: URI of the task's data; None where its definition names files itself.
        include: URI of a folder with task definitions.
        few_shot: number of worked examples; None: as the task defines it.
        chat_template: questions are conversations, examples their turns; else plain text.
    """

    task: str
    data: str | None = None
    include: str | None = None
    few_shot: int | None = Field(None, ge=0)
    chat_template: bool = False


class SuiteContainer(Document):
    """A user's own container: items in, scores out. ``timeout_seconds``: limit from whole input to whole scores."""

    image: str
    command: tuple[str, ...] = ()
    timeout_seconds: int = Field(3600, ge=1)


def _read_metrics(value: Any) -> Any:
    """Earlier releases wrote the type of a metric alone."""
    return tuple({"type": metric} if isinstance(metric, str) else metric for metric in value)


class Suite(Document):
    """Items that all sides answer. The last assistant turn of each row is the expected answer.

    Attributes:
        dataset: URI of the rows; None for a harness task and the built-in safety suite.
        columns: column of the rows by the member of the format that it stands for.
        group_column: items with the same value share a group: they are not independent.
        slice_columns: columns by whose values results are reported, too.
        repeats: number of answers of each side to each item.
        max_broken: largest share of items without a score; beyond it no gate of the suite passes.
    """

    name: Name
    dataset: str | None = None
    format: DataFormat = DataFormat.AUTO
    columns: dict[str, str] = Field({}, max_length=16)
    group_column: str | None = None
    slice_columns: tuple[str, ...] = ()
    harness: HarnessTask | None = None
    is_safety: bool = False
    container: SuiteContainer | None = None
    metrics: Annotated[tuple[MetricSettings, ...], BeforeValidator(_read_metrics)] = Field(
        min_length=1, max_length=MAX_METRICS
    )
    limit: int | None = Field(None, ge=1)
    repeats: int = Field(1, ge=1, le=MAX_REPEATS)
    max_broken: float = Field(0.05, ge=0, lt=1)
    decoding: Decoding = Decoding()

    @model_validator(mode="before")
    @classmethod
    def _read_earlier_form(cls, value: Any) -> Any:
        """Earlier releases wrote ``maxNewTokens`` beside the suite's other members."""
        if isinstance(value, dict) and (tokens := value.get("maxNewTokens", value.get("max_new_tokens"))):
            rest = {key: item for key, item in value.items() if key not in {"maxNewTokens", "max_new_tokens"}}
            return rest | {"decoding": {"maxNewTokens": tokens}}
        return value


class StoredAnswers(Document):
    """Answers of an earlier run, in the form of its ``items.jsonl``; ``side`` is the side that gave them."""

    uri: str
    digest: Digest
    side: Name


class Side(Document):
    """One side of a comparison. Without a source of its own it is the base model of the run.

    Attributes:
        adapter: an artifact: an adapter of ``model`` or of the run's base model, or a whole tuned model.
        checkpoint: a committed checkpoint of a job, by the digest of its commit manifest; it holds an adapter of
            ``model`` or of the run's base model, or a whole tuned model.
        model: URI of another model than the run's base model.
        endpoint: a model behind an endpoint.
        answers: answers of an earlier run.
        served_as: the alias whose version this is, as ``deployment/alias``; else empty.
        system_prompt: replaces the items' own system message.
        few_shot: number of worked examples.
        context_column: column of the rows whose passages stand before the question.
        template_arguments: arguments of the chat template, such as ``enable_thinking``.
        switches: arguments that its artifact was trained with, which the run reads from the manifest.
    """

    name: Name
    adapter: ArtifactSource | None = None
    checkpoint: ArtifactSource | None = None
    model: str | None = None
    endpoint: PricedEndpoint | None = None
    answers: StoredAnswers | None = None
    served_as: str = ""
    system_prompt: str | None = None
    few_shot: int = Field(0, ge=0, le=32)
    context_column: str | None = None
    template_arguments: dict[str, Any] = Field({}, max_length=16)
    switches: dict[str, Any] = Field({}, max_length=16, exclude=True)

    @property
    def asked_switches(self) -> dict[str, Any]:
        """Arguments of the chat template with which the side is asked."""
        return self.template_arguments or self.switches

    @property
    def is_loaded(self) -> bool:
        """True if the pod loads weights for this side; False if an endpoint or stored answers speak for it."""
        return self.endpoint is None and self.answers is None

    @property
    def is_bare(self) -> bool:
        """True if the side is asked as an alias asks it: with the items alone, and the switches of its artifact."""
        return (
            self.system_prompt is None
            and self.few_shot == 0
            and self.context_column is None
            and self.asked_switches == self.switches
        )


class Gate(Document):
    """Condition on candidate minus baseline.

    The threshold is ``margin``, or ``relative_margin`` times the baseline's mean but at least ``floor``.

    Attributes:
        metric: key of one of the suite's metrics.
        min_items: least number of independent items, of which a group counts once; with fewer the gate never passes.
    """

    suite: Name
    metric: str = Field(max_length=40)
    expect: Expect
    margin: float = Field(0.0, ge=0, lt=1)
    relative_margin: float | None = Field(None, ge=0, lt=1)
    floor: float = Field(0.0, ge=0, lt=1)
    tier: Tier = Tier.BLOCKING
    min_items: int = Field(20, ge=1)


class TrainedRows(Document):
    """Prepared training rows of a side's lineage, in which leaked items are looked for.

    Attributes:
        uri: URI of the ``train.parquet`` that data preparation left.
        digest: digest of the data set; by default that of the artifact's lineage.
        generation: place in the lineage: 0 for the job that made the side, 1 for the job that it started from, …
    """

    side: Name
    uri: str = Field(pattern=rf"/{re.escape(TRAIN_FILE)}$")
    digest: Digest | None = None
    generation: int = Field(0, ge=0)

    @property
    def validation_uri(self) -> str:
        """URI of the validation rows beside them."""
        return self.uri.removesuffix(TRAIN_FILE) + VALIDATION_FILE

    @property
    def report_uri(self) -> str:
        """URI of the report of their preparation."""
        work = self.uri.removesuffix(f"/{TRAIN_FILE}").rpartition("/")[0]
        return f"{work}/{DATA_REPORT_FOLDER}/{DATA_REPORT_FILE}"
