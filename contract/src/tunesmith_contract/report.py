"""Run report of a pod: in its termination message, and beside the artifact."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field

from .answer_formats import ThinkingFormat, ToolFormat
from .base import Digest, Report
from .evaluation import MAX_GATES, MAX_REFERENCES, MAX_RESULTS, MAX_SUITES
from .exit_codes import FailureCategory
from .methods import Name
from .run_config import OutputFormat
from .search import MAX_TRIALS
from .stages import Stage

#: kubelet keeps no more of a container's termination message.
TERMINATION_MESSAGE_BYTES = 4096

MAX_CURVE_POINTS = 16
MAX_CHECKPOINTS = 3
MAX_LINEARS = 24
MAX_EXPERTS = 4
MAX_DATA_ISSUES = 12
MAX_LINEAR_NAME = 40

#: Six significant digits are all that a report keeps of a measured number.
Measured = Annotated[float, AfterValidator(lambda number: float(f"{number:.6g}"))]
Count = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(max_length=512)]


class Outcome(StrEnum):
    """Outcome of a run."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    PREEMPTED = "Preempted"


class GPUReason(StrEnum):
    """Reasons of failures that a pod's check of its GPUs finds before it reads any model.

    An attempt that ended so has used no GPU: its GPU time is not counted.
    """

    NO_GPU = "NoGPU"
    DRIVER_TOO_OLD = "DriverTooOld"
    UNSUPPORTED_GPU = "UnsupportedGPU"
    FAULTY_GPU = "FaultyGPU"


class Failure(Report):
    """Failure of a run: ``reason`` is a PascalCase word, ``message`` a sentence that says what to do."""

    category: FailureCategory
    reason: str = Field(max_length=64)
    message: str = Field(max_length=2048)
    rank: int | None = None
    exit_code: int | None = None
    log: str = Field("", max_length=4096, description="The end of the log.")


class Artifact(Report):
    """A committed artifact."""

    uri: Text
    digest: Digest
    size_bytes: Count


class TokenStatistics(Report):
    """Tokens per row, by the model's own tokenizer and template."""

    p50: Count
    p95: Count
    max: Count
    total: Count


class IssueCount(NamedTuple):
    """Number of rows that a check flags; an array in JSON, so that the largest report fits."""

    check: Annotated[str, Field(max_length=40)]
    rows: Count


class DatasetReport(Report):
    """Report on the data set. ``rows`` = train + validation + duplicates + near duplicates + leaked + dropped.

    Attributes:
        duplicates: rows that repeat another one.
        near_duplicates: rows that are nearly the same as another one, where those are removed.
        leaked_rows: rows removed from training because validation or an evaluation holds them, and from a validation
            set of its own because an evaluation does.
        issues: issues of the quality checks, the most severe first.
        recommendation: method and adapter that suit the data.
        page: the report for people, one HTML file.
    """

    digest: Digest
    format: str = Field(max_length=32)
    rows: Count
    train_rows: Count
    validation_rows: Count
    duplicates: Count = 0
    near_duplicates: Count = 0
    leaked_rows: Count = 0
    dropped_rows: Count = 0
    truncated_rows: Count = 0
    tokens: TokenStatistics
    warnings: tuple[Annotated[str, Field(max_length=200)], ...] = Field((), max_length=4)
    issues: tuple[IssueCount, ...] = Field((), max_length=MAX_DATA_ISSUES)
    recommendation: str | None = Field(None, max_length=300)
    page: Text | None = None


class GenerationReport(Report):
    """Report on generated rows. ``made`` = rows + filtered + duplicates + leaked + unusable.

    Attributes:
        rows: rows that were kept.
        made: rows from the teacher's answers.
        filtered: rows that a judge or rewards turned down, or of which the judge contradicted itself.
        duplicates: rows that say the same as another generated row, or as one that generation started from.
        leaked: rows whose question is one of a held-out set.
        unusable: answers that were refused, cut off or not of the form that was asked for.
        calls: requests that were answered, or may have been.
        prompt_tokens, completion_tokens: as the endpoints count them.
        amount: cost by the budget's prices.
        generated: the file of rows.
        manifest: the file that describes the origin of the rows.
    """

    rows: Count
    made: Count
    filtered: Count = 0
    duplicates: Count = 0
    leaked: Count = 0
    unusable: Count = 0
    calls: Count
    prompt_tokens: Count
    completion_tokens: Count
    amount: str | None = Field(None, max_length=24)
    currency: str | None = Field(None, max_length=3)
    warnings: tuple[Annotated[str, Field(max_length=200)], ...] = Field((), max_length=2)
    generated: Artifact
    manifest: Artifact


class Linear(NamedTuple):
    """Linear layers of one name and shape; ``layers`` is their number in the whole model; an array in JSON."""

    name: Annotated[str, Field(max_length=MAX_LINEAR_NAME)]
    inputs: Count
    outputs: Count
    layers: Count


class ModelShape(Report):
    """Sizes of a model that its memory depends on, read from the model that ``config.json`` builds.

    ``linears`` are the layers an adapter may stand on (not the output layer), by name: ``q_proj``, ``down_proj``.
    With experts, ``intermediate_size`` is that of all experts together that a token passes through, and ``experts``
    are the adapters that PEFT puts on their fused weights beside ``linears``, each as if it stood on a layer.
    """

    hidden_size: Count
    intermediate_size: Count
    layers: Count
    attention_heads: Count
    key_value_heads: Count
    head_size: Count
    vocabulary_size: Count
    tied_embeddings: bool = False
    linears: tuple[Linear, ...] = Field((), max_length=MAX_LINEARS)
    experts: tuple[Linear, ...] = Field((), max_length=MAX_EXPERTS)


class ModelReport(Report):
    """Report on the base model; ``revision`` is a commit, or a digest of the files.

    ``quantization`` is the method of a base model that is quantized already, such as ``gptq``. ``tools`` and
    ``thinking`` are the forms that its chat template shows.
    """

    revision: str = Field(max_length=80)
    architecture: str = Field(max_length=64)
    parameters: Count
    max_position_embeddings: Count
    shape: ModelShape | None = None
    quantization: str | None = Field(None, max_length=32)
    template_changed: bool = Field(
        False, description="Training renders conversations by another template than the model's own."
    )
    tools: ToolFormat | None = None
    thinking: ThinkingFormat | None = None


class Export(Report):
    """Further artifact: the same result in another format."""

    format: OutputFormat
    artifact: Artifact


class CurvePoint(NamedTuple):
    """Losses at a step; an array in JSON. ``eval_loss`` where it was measured, ``reward`` where there are any."""

    step: int
    loss: Measured | None
    eval_loss: Measured | None
    reward: Measured | None = None


class Checkpoint(Report):
    """A committed checkpoint; ``digest`` is that of its commit manifest."""

    step: Count
    uri: Text
    digest: Digest
    eval_loss: Measured | None = None
    time: datetime


class SearchReport(Report):
    """Report on a search in one pod; the training report beside it is that of its best trial.

    Attributes:
        best: number of the best trial.
        trials: each trial as ``search.to_line`` writes it, the best first; the last are left out if they don't fit.
        completed, pruned, failed: numbers of trials by state.
        folder: URI of the folder with table, plot and all trials.
    """

    best: int = Field(ge=1)
    completed: Count
    pruned: Count = 0
    failed: Count = 0
    trials: tuple[Annotated[str, Field(max_length=192)], ...] = Field((), max_length=MAX_TRIALS)
    folder: Text | None = None


class TrainingReport(Report):
    """Report on training; losses are means per token in nats.

    Attributes:
        steps: optimizer steps done.
        reward: mean of the weighted sum of all rewards over the answers of the last logged steps.
        eval_reward: the same over answers to validation prompts.
        best_step: the step whose weights the artifact holds, where an earlier one was better than the last.
        overfitting_step: step after which the validation loss rose; None if it did not.
        stopped_early: the validation loss had stopped falling.
        curve: at most MAX_CURVE_POINTS points of the whole run; every logged step lies beside the artifact.
        kernels: attention and fused kernels that were used, such as ``FlashAttention2,FusedHead``.
        peak_memory_bytes: peak memory of the fullest GPU, or of the process on a CPU.
        exports: further formats of the artifact.
        checkpoints: those that were kept until the end.
        search: where the stage trained several times.
    """

    artifact: Artifact
    steps: Count
    epochs: Measured
    loss: Measured | None = None
    eval_loss: Measured | None = None
    reward: Measured | None = None
    eval_reward: Measured | None = None
    tokens_per_second: Measured | None = None
    gpu_seconds: Measured = 0.0
    seconds: Measured = 0.0
    precision: str = Field("", max_length=16)
    best_step: Count | None = None
    overfitting_step: Count | None = None
    stopped_early: bool = False
    curve: tuple[CurvePoint, ...] = Field((), max_length=MAX_CURVE_POINTS)
    kernels: str = Field("", max_length=64)
    peak_memory_bytes: Count = 0
    micro_batch_size: Count | None = None
    exports: tuple[Export, ...] = Field((), max_length=2)
    checkpoints: tuple[Checkpoint, ...] = Field((), max_length=MAX_CHECKPOINTS)
    search: SearchReport | None = None


class Interval(NamedTuple):
    """A mean with its confidence interval; an array in JSON, so that the largest report fits."""

    value: Measured
    low: Measured
    high: Measured


class MetricResult(NamedTuple):
    """One metric of one suite; an array in JSON.

    Attributes:
        metric: its key.
        items: items with a score of both candidate and baseline.
        scores: means with intervals, in the order of the report's sides; those of references may be left out.
        delta: candidate minus baseline over the same items, with a paired interval.
        p_value: two-sided, of no difference.
    """

    suite: Name
    metric: Annotated[str, Field(max_length=40)]
    items: Count
    scores: Annotated[tuple[Interval, ...], Field(min_length=2, max_length=2 + MAX_REFERENCES)]
    delta: Interval
    p_value: Annotated[Measured, Field(ge=0, le=1)]


class GateProblem(StrEnum):
    """Cause for which a gate can't pass, whatever the scores are."""

    MISSING = "Missing"
    SKIPPED = "Skipped"
    TOO_FEW_ITEMS = "TooFewItems"
    TOO_MANY_BROKEN = "TooManyBroken"
    BUDGET_EXHAUSTED = "BudgetExhausted"
    MARGIN_TOO_LARGE = "MarginTooLarge"
    SAME_MODELS = "SameModels"
    BASELINE_EMPTY = "BaselineEmpty"


class GateEvidence(NamedTuple):
    """Evidence for one gate, in the order of the configuration; an array in JSON.

    Attributes:
        items: items with a score of both sides.
        threshold: difference that the gate asks for, after a relative margin was resolved.
        p_pass: one-sided p-value of the hypothesis that the difference is at most the threshold.
        p_fail: one-sided p-value of the hypothesis that the difference is at least the threshold.
        more_items: further items that would probably decide; None where no number would, or none is needed.
        problem: cause for which it can't pass.
        is_blocking: False for an advisory gate.
        largest_margin: largest margin that would count, of a gate whose margin is too large; else None.
    """

    items: Count
    threshold: Measured
    p_pass: Annotated[Measured, Field(ge=0, le=1)]
    p_fail: Annotated[Measured, Field(ge=0, le=1)]
    more_items: Count | None = None
    problem: GateProblem | None = None
    is_blocking: bool = True
    largest_margin: Measured | None = None


class ComparedSide(NamedTuple):
    """Identity of the candidate or the baseline, as the record keeps it; an array in JSON.

    Attributes:
        digest: digest of the artifact or of stored answers, or revision of the model; empty for an endpoint.
        served_as: the alias whose version it was, as ``deployment/alias``; else empty.
        is_bare: it was asked as an alias asks it: no prompt, examples or passages, and the switches of its artifact.
    """

    digest: Annotated[str, Field(max_length=80)] = ""
    served_as: Annotated[str, Field(max_length=96)] = ""
    is_bare: bool = True


class SuiteCounts(NamedTuple):
    """Items of one suite, in the order of the configuration; an array in JSON.

    Attributes:
        items: items of the data, after sampling.
        leaked: items left out because a side was trained on them.
        broken: items without an answer of some side: too long, refused by the template, or never answered.
        truncated: answers of all sides that were cut off.
        incomplete: answers of all sides whose thinking never ended.
    """

    items: Count
    leaked: Count = 0
    broken: Count = 0
    truncated: Count = 0
    incomplete: Count = 0


class SideUsage(NamedTuple):
    """Revision and consumption of one side, in the order of the report's sides; an array in JSON.

    Attributes:
        revision: digest of the artifact, or revision of the model; empty for an endpoint.
        prompt_tokens, completion_tokens: of all its answers.
        latency: median seconds of an answer.
    """

    revision: Annotated[str, Field(max_length=80)] = ""
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    latency: Measured | None = None


class EvaluationReport(Report):
    """Report on an evaluation; the verdict is the operator's.

    Attributes:
        results: all metrics; where they do not fit, those without a gate are left out, and lie beside ``report``.
        compared: candidate and baseline.
        amount: cost of endpoints and judges, by their prices.
        report_digest, report_bytes: digest and size of ``report.json``, which lies beside ``details``, as do the pages
            for people.
    """

    sides: tuple[Name, ...] = Field(min_length=2, max_length=2 + MAX_REFERENCES)
    results: tuple[MetricResult, ...] = Field(max_length=MAX_RESULTS)
    gates: tuple[GateEvidence, ...] = Field((), max_length=MAX_GATES)
    suites: tuple[SuiteCounts, ...] = Field((), max_length=MAX_SUITES)
    usage: tuple[SideUsage, ...] = Field((), max_length=2 + MAX_REFERENCES)
    compared: tuple[ComparedSide, ...] = Field((), max_length=2)
    confidence: float = Field(0.95, gt=0, lt=1)
    policy_digest: Digest
    base_model_revision: str = Field("", max_length=80)
    amount: str | None = Field(None, max_length=24)
    currency: str | None = Field(None, max_length=3)
    details: Artifact = Field(description="Every item with all answers.")
    report_digest: Digest | None = None
    report_bytes: Count = 0


class RunReport(Report):
    """Report that a pod leaves when it ends. The member of its stage is set when the outcome is Succeeded.

    ``checkpoint`` is the newest committed one, where training ended before it was through. ``reused`` is the UID of the
    resource whose finished work was found unchanged: prepare found a training, evaluate an evaluation.
    """

    schema_version: Literal[1] = 1
    stage: Stage
    outcome: Outcome
    failure: Failure | None = None
    generation: GenerationReport | None = None
    dataset: DatasetReport | None = None
    model: ModelReport | None = None
    training: TrainingReport | None = None
    checkpoint: Checkpoint | None = None
    evaluation: EvaluationReport | None = None
    reused: str | None = Field(None, max_length=64)

    def to_termination_message(self) -> bytes:
        """JSON of at most TERMINATION_MESSAGE_BYTES.

        A log that is too long for that loses its start, a message its end. What is said of the data lies in its own
        report as well: here the least grave issues go first, then the ends of the warnings, the recommendation, and
        last the address of that report. Of a search the worst trials are left out.
        """
        return _fit(self).to_json().encode()


def parse_report(message: str | bytes) -> RunReport | None:
    """Report in a termination message; None where it holds none (the pod died before it wrote one)."""
    try:
        return RunReport.model_validate_json(message)
    except ValueError:
        return None


def _fit(report: RunReport) -> RunReport:
    """Shorten the report, one step at a time, until it fits."""
    while len(report.to_json().encode()) > TERMINATION_MESSAGE_BYTES:
        if report.failure:
            report = report.model_copy(update={"failure": _shorten_failure(report.failure)})
        elif report.training and report.training.search and report.training.search.trials:
            report = report.model_copy(update={"training": _with_fewer_trials(report.training)})
        elif report.evaluation and (shorter := _shorter_evaluation(report.evaluation)):
            report = report.model_copy(update={"evaluation": shorter})
        elif report.dataset and (changes := _shorter_dataset(report.dataset)):
            report = report.model_copy(update={"dataset": report.dataset.model_copy(update=changes)})
        else:
            break
    return report


def _with_fewer_trials(training: TrainingReport) -> TrainingReport:
    assert training.search is not None
    search = training.search.model_copy(update={"trials": training.search.trials[:-1]})
    return training.model_copy(update={"search": search})


def _shorten_failure(failure: Failure) -> Failure:
    if failure.log:
        return failure.model_copy(update={"log": failure.log[len(failure.log) // 4 + 1 :]})
    return failure.model_copy(update={"message": failure.message[: len(failure.message) * 3 // 4]})


def _shorter_evaluation(evaluation: EvaluationReport) -> EvaluationReport | None:
    """Report without the references' scores, then usage, then the last results; None if nothing can be left out.

    Gates keep their evidence: the verdict needs no more. ``report.json`` holds everything.
    """
    without_references = tuple(result._replace(scores=result.scores[:2]) for result in evaluation.results)
    if without_references != evaluation.results:
        return evaluation.model_copy(update={"results": without_references})
    if evaluation.usage:
        return evaluation.model_copy(update={"usage": ()})
    return evaluation.model_copy(update={"results": evaluation.results[:-1]}) if evaluation.results else None


def _shorter_dataset(dataset: DatasetReport) -> dict[str, Any]:
    """Changes that shorten the report by one step; empty if it cannot be shortened further."""
    if dataset.issues:
        return {"issues": dataset.issues[:-1]}
    if dataset.warnings:
        shorter = (warning[: len(warning) * 3 // 4] for warning in dataset.warnings)
        return {"warnings": tuple(filter(None, shorter))}
    if dataset.recommendation:
        return {"recommendation": None}
    return {"page": None} if dataset.page else {}
