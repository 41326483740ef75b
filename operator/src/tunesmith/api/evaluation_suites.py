"""Suites of an evaluation: items, metrics, decoding and gates."""

from typing import Annotated, ClassVar

from pydantic import Field

from tunesmith_contract.evaluation import (
    FEWEST_ITEMS,
    MAX_METRICS,
    MAX_REPEATS,
    Expect,
    JudgeMode,
    Metric,
    Tier,
)
from tunesmith_contract.sources import DataFormat

from .common import Resources, SecretName, StrictModel
from .endpoints import ChatEndpoint
from .evaluation_sides import EvaluatedEndpoint
from .rules import Rule, exactly_one, is_zero
from .sources import STORE_KEYS
from .uris import HarnessDataUri, ValidationDataUri
from .values import DecimalString, Fraction, Image, ItemName, MemberPath, Share


class TextSettings(StrictModel):
    """Differences of texts that do not count, for ExactMatch, Contains and TokenF1."""

    ignore_case: bool = Field(False, description="If true, upper and lower case are the same.")
    ignore_punctuation: bool = Field(False, description="If true, punctuation does not count.")


class NumericSettings(StrictModel):
    """The largest difference of two numbers that count as equal, for Numeric."""

    absolute: DecimalString = Field("0", description='The largest absolute difference, such as "0.5".')
    relative: DecimalString = Field(
        "0", description='The largest difference as a share of the expected number, such as "0.01".'
    )


class JudgeSettings(StrictModel):
    """A model that judges answers, for Judge, Faithfulness, ContextRecall and SafeAnswer."""

    endpoint: EvaluatedEndpoint = Field(
        description="The endpoint of the judge. Choose a model of another family than the compared models."
    )
    mode: JudgeMode = Field(
        JudgeMode.POINTS,
        description="The question to the judge. Points: it gives each answer 1 to 5 points. Pairs: it compares each "
        "answer with the baseline's, in both orders; contradictory verdicts count as a tie.",
    )
    rubric: Annotated[str, Field(min_length=1, max_length=8192)] | None = Field(
        None,
        description="The criteria in words. If unset, the judge decides by correctness beside the expected answer.",
    )
    max_tokens: int = Field(
        1024, ge=1, le=32_768, description="The maximum length of the judge's answer, in tokens."
    )
    human_label_column: MemberPath | None = Field(
        None,
        description="A column of the items with points that people gave to the baseline's answer. The agreement of "
        "judge and people is reported.",
    )


_SETTINGS: dict[str, tuple[str, tuple[Metric, ...], str]] = {
    "pattern": ("pattern", (Metric.REGEX,), "pattern: '^[A-Z]{2}-[0-9]+$'"),
    "jsonSchema": ("json_schema", (Metric.JSON_SCHEMA,), 'jsonSchema: \'{"type": "object"}\''),
    "k": ("k", (Metric.PASS_AT_K,), "k: 4"),
    "judge": ("judge", (Metric.JUDGE, Metric.FAITHFULNESS, Metric.CONTEXT_RECALL), "judge: {endpoint: …}"),
    "embedding": ("embedding", (Metric.EMBEDDING_SIMILARITY,), "embedding: {url: …, model: …}"),
}


def _needs(member: str, metrics: tuple[Metric, ...], example: str) -> Rule:
    names = ", ".join(f"'{metric}'" for metric in metrics)
    words = " or ".join(metrics)
    return Rule(
        f"!(self.type in [{names}]) || has(self.{member})", f"{words} needs {member}: write {example}."
    )


class MetricSpec(StrictModel):
    """A metric that scores answers."""

    rules: ClassVar[tuple[Rule, ...]] = tuple(
        _needs(member, metrics, example) for member, (_, metrics, example) in _SETTINGS.items()
    )

    type: Metric = Field(
        description="The metric. Text: ExactMatch, Contains, TokenF1, ROUGEL, BLEU, CHRF, Regex, Numeric. Structure: "
        "JSONValid, JSONSchema, JSONFields (the share of the fields of the expected JSON object that the answer has "
        "with the same value; superfluous fields cost as much as missing ones), XMLValid, ToolCall. Classes: Accuracy, "
        "MacroF1. Likelihood of the expected answer: Perplexity, BitsPerByte. Several answers: PassAtK, Consistency. "
        "Programs: CodeTests. Judged: Judge, Faithfulness, ContextRecall, EmbeddingSimilarity. Effort: Latency, "
        "Tokens. SafeAnswer: of the built-in suite. TaskScore: of a harness task. ContainerScore: of a container."
    )
    name: ItemName | None = Field(
        None,
        description="The name of the metric in gates and results. If unset, its type. Required for a second metric of "
        "the same type.",
    )
    text: TextSettings | None = Field(
        None, description="Differences that ExactMatch, Contains and TokenF1 ignore."
    )
    pattern: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        None, description="The regular expression (RE2) that an answer must contain, for Regex."
    )
    json_schema: Annotated[str, Field(min_length=2, max_length=16_384)] | None = Field(
        None, description="The JSON Schema, as text, that an answer must satisfy, for JSONSchema."
    )
    tolerance: NumericSettings | None = Field(None, description="The tolerance of Numeric.")
    labels: Annotated[tuple[Annotated[str, Field(max_length=128)], ...], Field(max_length=64)] = Field(
        (),
        description="The classes of Accuracy and MacroF1. If empty, the expected answers are the classes.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    k: Annotated[int, Field(ge=1, le=MAX_REPEATS)] | None = Field(
        None,
        description="The number of answers of which one must be right, for PassAtK, at most the repeats of the suite.",
    )
    timeout_seconds: Annotated[int, Field(ge=1, le=600)] | None = Field(
        None, description="The time limit of one run of an item's tests, for CodeTests. If unset, 10 seconds."
    )
    judge: JudgeSettings | None = Field(
        None, description="The judge of Judge, Faithfulness and ContextRecall."
    )
    task_metric: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        None,
        description="The metric of the harness task, such as acc_norm, or with one of its filters, such as "
        "exact_match,flexible-extract, for TaskScore. If unset, the first one of the task.",
    )
    embedding: ChatEndpoint | None = Field(
        None, description="The endpoint of an embedding model (/embeddings), for EmbeddingSimilarity."
    )


class ColumnMapping(StrictModel):
    """Columns of the rows that stand for the members of a format."""

    prompt: MemberPath | None = Field(None, description="The column of the question, such as input.")
    completion: MemberPath | None = Field(
        None, description="The column of the expected answer, such as label."
    )
    messages: MemberPath | None = Field(None, description="The column of the conversation.")
    tools: MemberPath | None = Field(None, description="The column of the tools.")


class EvaluationData(StrictModel):
    """The items of a suite."""

    uri: ValidationDataUri = Field(
        description="The location of the items, in the formats of training data: pvc://claim/file.jsonl, "
        "configmap://name/key for small data, hf://org/repo/file@revision, s3://bucket/file.jsonl, "
        "gs://bucket/file.jsonl or az://container/file.jsonl."
    )
    secret_ref: SecretName | None = Field(
        None, description=f"{STORE_KEYS} If unset, hf:// is read with baseModel.secretRef."
    )
    format: DataFormat = Field(
        DataFormat.AUTO, description="The format of the rows, as in dataset.format of a FineTuneJob."
    )
    columns: ColumnMapping | None = Field(
        None, description="The columns of rows that are named otherwise than the format has it."
    )


class HarnessSuite(StrictModel):
    """A task of lm-evaluation-harness, from data that is mounted. Nothing is downloaded."""

    task: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        description="The name of the task, such as arc_easy, or of one that include defines."
    )
    data: HarnessDataUri | None = Field(
        None,
        description="The location of the task's data: a file (JSON, JSONL, CSV, Parquet) or a folder on a claim.",
    )
    include: HarnessDataUri | None = Field(
        None, description="The location of a folder with definitions of tasks in YAML."
    )
    few_shot: Annotated[int, Field(ge=0, le=32)] | None = Field(
        None, description="The number of worked examples. If unset, as the task defines it."
    )
    chat_template: bool = Field(
        False,
        description="If true, the questions are conversations by the chat template of each model, with the worked "
        "examples as turns. If false, plain text, as in most published results.",
    )


class ContainerSuite(StrictModel):
    """A container of your own that scores answers: items and answers in, scores out, by the published contract."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.image.matches('@sha256:[0-9a-f]{64}$')",
            "Write the image by its digest, such as registry.example/team/scorer@sha256:…: a tag can be moved, and "
            "policyDigest would not change with what scores the answers.",
            field=".image",
        ),
    )

    image: Image = Field(
        description="The image of the container, by its digest: policyDigest names by it what scores the answers."
    )
    command: Annotated[tuple[Annotated[str, Field(max_length=1024)], ...], Field(max_length=32)] = Field(
        (), description="The command and its arguments. If empty, that of the image."
    )
    timeout_seconds: int = Field(
        3600,
        ge=1,
        le=86_400,
        description="The time limit of the container, from the last answer to the last score. Items that it has not "
        "scored by then have no score.",
    )
    resources: Resources | None = Field(
        None,
        description="CPU and memory requests and limits of the container. If unset, it requests 250m and 512Mi, and "
        "is limited to 2Gi of memory.",
    )


_METRIC_KEY = "(has({0}.name) ? {0}.name : {0}.type)"


class Suite(StrictModel):
    """A set of items with metrics, answered by all models of the comparison."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one(
            ("dataset", "harness"),
            "Set exactly one kind of items: dataset: {uri: …}, or harness: {task: …}.",
        ),
        Rule(
            "self.metrics.all(m, self.metrics.filter(n, "
            f"{_METRIC_KEY.format('n')} == {_METRIC_KEY.format('m')}).size() == 1)",
            "Two metrics of a suite have the same name: give one of them another name.",
            field=".metrics",
        ),
        Rule(
            "self.metrics.all(m, !has(m.k) || m.k <= (has(self.repeats) ? self.repeats : 1))",
            "k of PassAtK can't be above repeats: raise repeats.",
            field=".metrics",
        ),
        Rule(
            "!has(self.repeats) || self.repeats == 1 || "
            f"(has(self.temperature) && !{is_zero('self.temperature')})",
            'Repeated answers need a temperature above 0, such as temperature: "0.7": greedy answers are all alike.',
        ),
    )

    name: ItemName = Field(description="The name of the suite, used by gates and results.")
    dataset: EvaluationData | None = Field(
        None,
        description="The items. The last assistant turn (or the completion) of each row is the expected answer; it may "
        "be a call of a tool. Items that the candidate or the baseline was trained on are left out and counted.",
    )
    harness: HarnessSuite | None = Field(
        None, description="A task of lm-evaluation-harness, such as one that shows forgetting."
    )
    container: ContainerSuite | None = Field(
        None, description="A container of your own that scores the answers, with metric ContainerScore."
    )
    metrics: Annotated[tuple[MetricSpec, ...], Field(min_length=1, max_length=MAX_METRICS)] = Field(
        description="The metrics that score the answers.",
    )
    group_column: MemberPath | None = Field(
        None,
        description="A column of the items, such as document: items with the same value are not independent, and the "
        "intervals allow for that.",
    )
    slice_columns: Annotated[tuple[MemberPath, ...], Field(max_length=4)] = Field(
        (),
        description="Columns of the items, such as language, by whose values the report shows results, too.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    limit: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None,
        description="The number of items to use. They are drawn by content and spec.seed, so that the same rows are "
        "used whatever their order. If unset, all items are used.",
    )
    repeats: int = Field(
        1, ge=1, le=MAX_REPEATS, description="The number of answers of each model to each item, for PassAtK."
    )
    max_broken: Fraction = Field(
        "0.05",
        description="The largest share of items without a score, such as those that are too long. Beyond it, no gate "
        "of the suite passes.",
    )
    max_new_tokens: int = Field(
        256,
        ge=1,
        le=32_768,
        description="The maximum length of an answer in tokens, thinking included. Longer answers are cut off and "
        "counted.",
    )
    temperature: DecimalString = Field(
        "0", description='The sampling temperature of all models. "0": greedy decoding.'
    )
    top_p: Share = Field("1", description="The share of the probability that is sampled from, up to 1.")
    stop: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=64)], ...], Field(max_length=4)] = (
        Field(
            (),
            description="Strings that end an answer, beside the end tokens of the model. Plain text with worked "
            "examples ends at an empty line, unless stop is set.",
        )
    )


class Gate(StrictModel):
    """A condition on the comparison that must hold for the verdict Pass."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.expect != 'NotWorse' || has(self.relativeMargin) || "
            f"(has(self.margin) && !{is_zero('self.margin')})",
            "expect: NotWorse needs a margin above 0: write the largest acceptable loss, such as margin: "
            '"0.02".',
        ),
        Rule(
            f"!has(self.relativeMargin) || !has(self.margin) || {is_zero('self.margin')}",
            "Write margin or relativeMargin, not both; floor is the least margin of relativeMargin.",
        ),
        Rule(
            "!has(self.floor) || has(self.relativeMargin)", "floor belongs to relativeMargin: leave it out."
        ),
    )

    suite: ItemName = Field(
        description="The name of one of the suites, or safety or safety-harmless for the built-in ones."
    )
    metric: Annotated[str, Field(min_length=1, max_length=40)] = Field(
        description="The name (or the type, where it has no name) of one of the metrics of that suite."
    )
    expect: Expect = Field(
        description="The expected result. Better: the candidate's lead over the baseline is greater than margin. "
        "NotWorse: the candidate is behind by less than margin. Both the confidence interval and an exact or "
        "permutation test must say so; otherwise the gate fails or is Inconclusive."
    )
    margin: Fraction = Field(
        "0", description='The relevant difference of the scores, between 0 and 1, such as "0.05".'
    )
    relative_margin: Fraction | None = Field(
        None,
        description='The relevant difference as a share of the baseline\'s score, such as "0.02" for 2 %.',
    )
    floor: Fraction | None = Field(
        None, description='The least margin that relativeMargin may give, such as "0.01".'
    )
    tier: Tier = Field(
        Tier.BLOCKING,
        description="Blocking: the gate decides the verdict. Advisory: it is reported only.",
    )
    min_items: int = Field(
        20,
        ge=FEWEST_ITEMS,
        le=1_000_000,
        description="The least number of independent items; those of a group count once. With fewer, the gate does not "
        "pass.",
    )
