"""Scorers by the settings of a metric."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tunesmith_contract.evaluation import EvaluationJudge, JudgeMode, Metric, MetricSettings, TextMatch
from tunesmith_data.failures import UserError

from .classification import Accuracy, MacroF1
from .code_tests import DEFAULT_TIMEOUT_SECONDS, CodeRunner, CodeTests, RightAnswer
from .embeddings import Embedder, EmbeddingSimilarity
from .json_scorers import JSONFields, JSONSchema, JSONValid, XMLValid
from .judge.client import Judge
from .judge.families import warn_of_same_family
from .judge.grounding import ContextRecall, Faithfulness
from .judge.pairs import JudgePairs
from .judge.points import JudgePoints
from .measurements import BitsPerByte, Latency, Perplexity, Tokens
from .numeric import Numeric
from .overlap_scorers import Bleu, Chrf, RougeL
from .repeats import Consistency, PassAtK
from .safety import SafeAnswer
from .scorer import Scorer, TextScorer
from .text_scorers import Contains, ExactMatch, Regex, TokenF1
from .tool_call_scorer import ToolCall

#: Metrics whose scores come from a harness task or from a user's container, not from a scorer.
SCORED_ELSEWHERE = frozenset({Metric.TASK_SCORE, Metric.CONTAINER_SCORE})


@dataclass(frozen=True)
class Helpers:
    """Programs and models that some scorers ask for help.

    Attributes:
        judge: the judge of a metric, opened by the caller; None if there are none.
        embedder: the encoder of a metric's texts; None if there are none.
        code_runner: sandbox for code; None if there is none.
        side_models: name of the model by name of the side, for warnings about a judge of the same family.
    """

    judge: Callable[[MetricSettings], Judge] | None = None
    embedder: Callable[[MetricSettings], Embedder] | None = None
    code_runner: CodeRunner | None = None
    side_models: Mapping[str, str] = field(default_factory=dict)


_Build = Callable[[MetricSettings, Helpers], Scorer]


def build_scorer(settings: MetricSettings, helpers: Helpers) -> Scorer:
    """Scorer of a metric.

    Raises:
        UserError: a setting is missing or wrong, or help is needed that there is not; the message says what to write.
    """
    build = _BUILDERS.get(settings.type)
    if build is None:
        message = f"metric {settings.key} is scored by a harness task or a container: use it in such a suite"
        raise UserError("MetricSettings", message)
    return build(settings, helpers)


def _build_text(settings: MetricSettings, helpers: Helpers) -> Scorer:
    text = settings.text or TextMatch()
    kind = {Metric.EXACT_MATCH: ExactMatch, Metric.CONTAINS: Contains}[settings.type]
    return kind(ignore_case=text.ignore_case, ignore_punctuation=text.ignore_punctuation)


def _build_regex(settings: MetricSettings, helpers: Helpers) -> TextScorer:
    if settings.pattern is None:
        raise _missing(settings, "pattern", "pattern: '^[0-9]+$'")
    return Regex(settings.pattern)


def _build_numeric(settings: MetricSettings, helpers: Helpers) -> TextScorer:
    if settings.tolerance is None:
        return Numeric()
    return Numeric(settings.tolerance.absolute, settings.tolerance.relative)


def _build_pass_at_k(settings: MetricSettings, helpers: Helpers) -> Scorer:
    """Pass@k of the tests of items that have some, else of the metric that the other settings belong to."""
    if settings.pass_at_k is None:
        raise _missing(settings, "k", "k: 4")
    runner = helpers.code_runner
    by_tests = _code_tests(settings, runner) if runner is not None else None
    by_text: TextScorer
    if settings.pattern is not None:
        by_text = _build_regex(settings, helpers)
    elif settings.json_schema is not None:
        by_text = JSONSchema(settings.json_schema)
    elif settings.tolerance is not None:
        by_text = _build_numeric(settings, helpers)
    elif settings.labels:
        by_text = Accuracy(settings.labels)
    else:
        text = settings.text or TextMatch()
        by_text = ExactMatch(ignore_case=text.ignore_case, ignore_punctuation=text.ignore_punctuation)
    return PassAtK(RightAnswer(by_text, by_tests), settings.pass_at_k)


def _build_code_tests(settings: MetricSettings, helpers: Helpers) -> Scorer:
    if helpers.code_runner is None:
        message = f"metric {settings.key} runs code, and there is no sandbox: run it in a pod, or start one on Linux"
        raise UserError("SandboxUnavailable", message)
    return _code_tests(settings, helpers.code_runner)


def _code_tests(settings: MetricSettings, runner: CodeRunner) -> CodeTests:
    return CodeTests(runner, settings.code_timeout_seconds or DEFAULT_TIMEOUT_SECONDS)


def _build_similarity(settings: MetricSettings, helpers: Helpers) -> Scorer:
    if helpers.embedder is None or settings.embedding is None:
        raise _missing(settings, "embedding", "embedding: {url: …, model: …}")
    return EmbeddingSimilarity(helpers.embedder(settings))


def _build_judge(settings: MetricSettings, helpers: Helpers) -> Scorer:
    spec, judge, warning = _judge(settings, helpers)
    kind = JudgePairs if spec.mode is JudgeMode.PAIRS else JudgePoints
    return kind(judge, spec.rubric, warning)


def _build_faithfulness(settings: MetricSettings, helpers: Helpers) -> Scorer:
    _, judge, warning = _judge(settings, helpers)
    return Faithfulness(judge, warning)


def _build_recall(settings: MetricSettings, helpers: Helpers) -> Scorer:
    _, judge, warning = _judge(settings, helpers)
    return ContextRecall(judge, warning)


def _build_safety(settings: MetricSettings, helpers: Helpers) -> Scorer:
    return SafeAnswer(_judge(settings, helpers)[1] if settings.judge is not None else None)


def _judge(settings: MetricSettings, helpers: Helpers) -> tuple[EvaluationJudge, Judge, str]:
    """Settings of a metric's judge, the judge, and a warning about its family."""
    spec = settings.judge
    if spec is None or helpers.judge is None:
        raise _missing(settings, "judge", "judge: {endpoint: {url: …, model: …}}")
    return spec, helpers.judge(settings), warn_of_same_family(spec.endpoint.model, helpers.side_models)


def _missing(settings: MetricSettings, member: str, example: str) -> UserError:
    return UserError("MetricSettings", f"metric {settings.key} needs {member}: write {example}")


_BUILDERS: Mapping[Metric, _Build] = MappingProxyType(
    {
        Metric.EXACT_MATCH: _build_text,
        Metric.CONTAINS: _build_text,
        Metric.TOKEN_F1: lambda settings, helpers: TokenF1(),
        Metric.ROUGE_L: lambda settings, helpers: RougeL(),
        Metric.BLEU: lambda settings, helpers: Bleu(),
        Metric.CHRF: lambda settings, helpers: Chrf(),
        Metric.PERPLEXITY: lambda settings, helpers: Perplexity(),
        Metric.BITS_PER_BYTE: lambda settings, helpers: BitsPerByte(),
        Metric.REGEX: _build_regex,
        Metric.JSON_VALID: lambda settings, helpers: JSONValid(),
        Metric.JSON_SCHEMA: lambda settings, helpers: JSONSchema(settings.json_schema),
        Metric.JSON_FIELDS: lambda settings, helpers: JSONFields(),
        Metric.XML_VALID: lambda settings, helpers: XMLValid(),
        Metric.NUMERIC: _build_numeric,
        Metric.ACCURACY: lambda settings, helpers: Accuracy(settings.labels),
        Metric.MACRO_F1: lambda settings, helpers: MacroF1(settings.labels),
        Metric.EMBEDDING_SIMILARITY: _build_similarity,
        Metric.TOOL_CALL: lambda settings, helpers: ToolCall(),
        Metric.CONSISTENCY: lambda settings, helpers: Consistency(),
        Metric.PASS_AT_K: _build_pass_at_k,
        Metric.LATENCY: lambda settings, helpers: Latency(),
        Metric.TOKENS: lambda settings, helpers: Tokens(),
        Metric.CODE_TESTS: _build_code_tests,
        Metric.JUDGE: _build_judge,
        Metric.FAITHFULNESS: _build_faithfulness,
        Metric.CONTEXT_RECALL: _build_recall,
        Metric.SAFE_ANSWER: _build_safety,
    }
)
