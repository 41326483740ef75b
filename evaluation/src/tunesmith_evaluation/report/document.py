"""Report document (``report.json``): all facts about a finished evaluation, for people and tools.

All renderings (Markdown, JUnit XML, HTML page, index) are made from this document alone. Conventions:

- A difference (``delta``) is candidate minus baseline over the same items, whatever the metric's direction;
  ``higher_is_better`` says which sign is good.
- An interval is ``[value, low, high]``.
- Times are in seconds but for ``started`` and ``ended``, which are ISO 8601; costs are amounts with a currency.
- Texts of items and answers are excerpts of at most MAX_EXCERPT characters; the items file has all of them.

Readers ignore members that they do not know, so a minor addition keeps ``schemaVersion``; a changed meaning raises it.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field

from tunesmith_contract.base import Digest, Report
from tunesmith_contract.evaluation import Expect, Tier
from tunesmith_contract.report import Artifact, Count, Interval, Measured
from tunesmith_contract.shared_rules.verdict import Verdict

SCHEMA_VERSION: Literal[1] = 1

REPORT_FILE = "report.json"

MAX_WORST_ITEMS = 50
MAX_LEAKED_ITEMS = 50
MAX_SLICES = 200
MAX_LABELS = 30
#: Characters of a question or an answer in the document.
MAX_EXCERPT = 4000

Share = Annotated[float, Field(ge=0, le=1)]


class SideKind(StrEnum):
    """Origin of a side's answers."""

    BASE = "Base"
    ARTIFACT = "Artifact"
    MODEL = "Model"
    CHECKPOINT = "Checkpoint"
    ALIAS = "Alias"
    ENDPOINT = "Endpoint"
    ANSWERS = "Answers"


class SuiteKind(StrEnum):
    """Origin of a suite's items and scores."""

    DATASET = "Dataset"
    SAFETY = "Safety"
    HARNESS = "Harness"
    CONTAINER = "Container"


class EvaluatedRun(Report):
    """The run that made the report.

    Attributes:
        alias: the alias of an AdapterDeployment that the candidate is meant for; empty if there is none.
        runs: number of finished runs with the same candidate and policy, this one included, where it is known.
        gpu_seconds: GPUs times seconds, of the pod that made the report.
        amount: cost of the run, endpoints and judges included.
    """

    namespace: str = ""
    name: str
    uid: str = ""
    started: AwareDatetime
    ended: AwareDatetime
    tunesmith_version: str
    alias: str = ""
    runs: Annotated[int, Field(ge=1)] | None = None
    gpu_seconds: Measured = 0.0
    amount: Measured | None = None
    currency: str = ""


class VerdictReport(Report):
    """Verdict; ``reason`` is a PascalCase word, ``message`` one or two sentences for people."""

    verdict: Verdict
    reason: str
    message: str


class PolicyReport(Report):
    """Record of everything that decides, and its digest (sha256 of its canonical JSON)."""

    digest: Digest
    record: dict[str, Any]


class SideReport(Report):
    """One side: its model or endpoint, its prompts, and the time and tokens of its answers.

    Attributes:
        name: ``candidate``, ``baseline``, or the name of a reference; unique.
        uri: where the model, the endpoint or the file of answers is.
        digest: digest of an artifact or of a file of answers.
        revision: revision of the model under it, or the model's name at an endpoint.
        base_model: URI of the base model, where the side stands on one.
        template_arguments: switches of the chat template, such as ``enable_thinking``.
        context_column: member of each item with the retrieved passages.
        latency_p50, latency_p95: seconds per answer.
    """

    name: str
    kind: SideKind
    uri: str = ""
    digest: str = ""
    revision: str = ""
    base_model: str = ""
    system_prompt: str | None = None
    few_shot: Count = 0
    template_arguments: dict[str, Any] = Field(default_factory=dict)
    context_column: str = ""
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    amount: Measured | None = None
    currency: str = ""
    latency_p50: Measured | None = None
    latency_p95: Measured | None = None


class SideCounts(Report):
    """Items of a suite that one side did not answer as asked.

    Attributes:
        too_long: items whose prompt does not fit beside the answer.
        refused_by_template: items that the chat template refuses.
        unanswered: items without an answer after all retries.
        beyond_budget: items that were not asked since the endpoint's budget did not cover them.
        truncated: answers cut off at the maximum length.
        incomplete_thinking: answers that never closed their thinking marks.
        empty: answers without text and without calls of tools.
    """

    side: str
    answered: Count
    too_long: Count = 0
    refused_by_template: Count = 0
    unanswered: Count = 0
    beyond_budget: Count = 0
    truncated: Count = 0
    incomplete_thinking: Count = 0
    empty: Count = 0


class SuiteReport(Report):
    """Items of a suite and what became of them.

    Attributes:
        digest: digest of the items.
        items: items in the data, after repeated ones were removed.
        repeated: rows that were removed because they repeat another one.
        selected: items within the suite's limit.
        leaked: selected items that were left out because they are in training data.
        used: items that all sides answered and that were compared.
        repeats: answers of each side per item.
        problem: why the suite is missing or broken; empty if it is not.
    """

    name: str
    kind: SuiteKind = SuiteKind.DATASET
    uri: str = ""
    digest: str = ""
    items: Count
    repeated: Count = 0
    selected: Count
    leaked: Count = 0
    used: Count
    repeats: Annotated[int, Field(ge=1)] = 1
    sides: tuple[SideCounts, ...] = ()
    problem: str = ""


class SideScore(Report):
    """Mean score of one side with its confidence interval."""

    side: str
    score: Interval


class Fact(Report):
    """A further number or phrase about a metric, such as the agreement of a judge with people.

    Attributes:
        side: the side that it is about; empty if it is about none in particular.
    """

    name: str
    value: float | str
    side: str = ""


class ConfusionMatrix(Report):
    """Expected labels (rows) against answered labels (columns) of one side."""

    side: str
    labels: tuple[str, ...] = Field(max_length=MAX_LABELS)
    counts: tuple[tuple[Count, ...], ...] = Field(max_length=MAX_LABELS)


class MetricReport(Report):
    """One metric of one suite.

    Attributes:
        metric: its key, which gates name.
        unit: unit of the scores; empty for scores from 0 to 1.
        items: items that were compared.
        groups: groups of items that share a source; 0 if items are independent.
        scores: one per side that was scored, the candidate first.
        delta: None where the suite is broken.
        p_value: two-sided, of no difference.
        wins, losses, ties: items on which the candidate is better, worse, equal.
    """

    suite: str
    metric: str
    version: str = ""
    higher_is_better: bool = True
    unit: str = ""
    items: Count
    groups: Count = 0
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    scores: tuple[SideScore, ...]
    delta: Interval | None = None
    p_value: Measured | None = None
    wins: Count = 0
    losses: Count = 0
    ties: Count = 0
    facts: tuple[Fact, ...] = ()
    confusion: tuple[ConfusionMatrix, ...] = ()


class GateReport(Report):
    """Gate and its result.

    Attributes:
        metric: key of one of the suite's metrics.
        margin: the margin in words, such as ``0.02`` or ``2 % of the baseline's score``; ``0`` if there is none.
        threshold: the difference that the gate asks for; None if it could not be known.
        tier: advisory gates are shown and change no verdict.
        p_pass: one-sided p-value of the hypothesis that the difference is at most the threshold.
        p_fail: one-sided p-value of the hypothesis that the difference is at least the threshold.
        p_fail_corrected: ``p_fail`` after correction for the number of blocking gates (Holm).
        reason: a PascalCase word for a gate that can't pass, such as ``TooFewItems``; else empty.
        message: a sentence for people.
        more_items: how many more items would decide, for an Inconclusive gate where a number would.
    """

    suite: str
    metric: str
    expect: Expect
    margin: str = "0"
    threshold: Measured | None = None
    tier: Tier = Tier.BLOCKING
    verdict: Verdict
    p_pass: Measured | None = None
    p_fail: Measured | None = None
    p_fail_corrected: Measured | None = None
    reason: str = ""
    message: str = ""
    more_items: Count | None = None


class SliceReport(Report):
    """Difference on the items with one value of a column."""

    suite: str
    metric: str
    column: str
    value: str
    items: Count
    delta: Interval


class AnswerExcerpt(Report):
    """Answer of one side to one item.

    Attributes:
        characters: length of the whole answer.
        finish_reason: ``Stop``, ``Length``, or a word of the endpoint.
    """

    side: str
    text: str = Field(max_length=MAX_EXCERPT)
    characters: Count
    score: Measured
    finish_reason: str = ""
    tokens: Count | None = None
    seconds: Measured | None = None


class WorstItem(Report):
    """Item on which the candidate lost most; the answers are the candidate's and the baseline's, in this order.

    Attributes:
        line: line in the suite's data; 0 if it has none.
        loss: how much worse the candidate's score is, always positive.
    """

    suite: str
    metric: str
    line: Count = 0
    digest: str
    question: str = Field(max_length=MAX_EXCERPT)
    expected: str = Field("", max_length=MAX_EXCERPT)
    loss: Measured
    answers: tuple[AnswerExcerpt, AnswerExcerpt]


class SideContamination(Report):
    """Training data of one side, against which the items were checked.

    Attributes:
        checked: False if the training data is not known or could not be read; ``message`` says why.
    """

    side: str
    checked: bool
    uri: str = ""
    digest: str = ""
    message: str = ""


class LeakedItem(Report):
    """An item that is in the training data of a side, and was left out."""

    suite: str
    line: Count = 0
    digest: str
    side: str
    similarity: Share = Field(1.0, description="1: the same question.")
    question: str = Field(max_length=MAX_EXCERPT)


class Contamination(Report):
    """Check of the items against the training data of all sides.

    Attributes:
        leaked: number of items left out, over all suites.
        items: examples of them.
    """

    sides: tuple[SideContamination, ...] = ()
    leaked: Count = 0
    items: tuple[LeakedItem, ...] = Field((), max_length=MAX_LEAKED_ITEMS)


class EvaluationDocument(Report):
    """Report of a finished evaluation.

    Attributes:
        sides: the candidate first, the baseline second, then references.
        results: one per suite and metric.
        worst: the greatest losses first.
        worst_total: number of items on which the candidate lost, of which ``worst`` are examples.
        details: the file of all items with all answers.
        decoding: parameters of generation, by name.
        environment: versions, engine and machine, by name.
        advice: sentences on whether fine-tuning pays, and what would help.
        warnings: sentences on what weakens the result.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    run: EvaluatedRun
    verdict: VerdictReport
    policy: PolicyReport
    sides: tuple[SideReport, ...] = Field(min_length=2)
    suites: tuple[SuiteReport, ...]
    results: tuple[MetricReport, ...]
    gates: tuple[GateReport, ...] = ()
    slices: tuple[SliceReport, ...] = Field((), max_length=MAX_SLICES)
    worst: tuple[WorstItem, ...] = Field((), max_length=MAX_WORST_ITEMS)
    worst_total: Count = 0
    contamination: Contamination = Contamination()
    details: Artifact | None = None
    decoding: dict[str, Any] = Field(default_factory=dict)
    environment: dict[str, str] = Field(default_factory=dict)
    advice: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def metric(self, suite: str, metric: str) -> MetricReport | None:
        """Result of a metric on a suite; None if it was not measured."""
        found = (result for result in self.results if (result.suite, result.metric) == (suite, metric))
        return next(found, None)


def excerpt(text: str) -> str:
    """The first MAX_EXCERPT characters of a text."""
    return text[:MAX_EXCERPT]
