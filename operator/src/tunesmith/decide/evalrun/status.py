"""Status of an EvalRun, rebuilt on each reconcile."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tunesmith.api.evalrun import (
    Comparison,
    EvalRun,
    EvalRunStatus,
    EvaluationCost,
    EvaluationProgress,
    ReferenceArtifact,
    SideArtifact,
    SideResult,
    SuiteStatus,
)
from tunesmith.api.reasons import ConditionType, EvalRunPhase, EvalRunReason, RunReason
from tunesmith.api.status import ArtifactRef, ContainerRequests
from tunesmith.api.values import format_duration
from tunesmith.decide.conditions import ConditionUpdate, merge_conditions
from tunesmith.decide.fit.requests import evaluation_requests, shown_requests
from tunesmith.decide.run.finished_work import adopted_condition
from tunesmith.decide.run.stage import StageState, Step
from tunesmith.decide.run.summary import (
    attempt_conditions,
    build_cost,
    build_failure,
    conditions_of,
    decimal,
    ended_conditions,
    waiting_conditions,
)
from tunesmith.decide.run.suspension import describe_queue
from tunesmith.manifests.objects import Body
from tunesmith.manifests.run_snapshots import Inputs
from tunesmith_contract.evaluation import Gate, Side
from tunesmith_contract.layout import EVALUATION_REPORT_FILE
from tunesmith_contract.progress import (
    AMOUNT,
    COMPLETION_TOKENS,
    CURRENCY,
    PROMPT_TOKENS,
    TrainerStatus,
)
from tunesmith_contract.report import EvaluationReport, Interval, MetricResult
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_contract.shared_rules.advice import advise
from tunesmith_contract.shared_rules.verdict import (
    ComparisonVerdict,
    GateVerdict,
    Verdict,
    judge,
    judge_report,
)
from tunesmith_contract.stages import Stage

from .gates import describe_gate, gate_status, judge_evaluation, worst
from .kept_verdicts import own_verdict
from .results_text import headline_change, results_table
from .suites import model_use, resolve_gates, suite_notes

_NOTE_CHARACTERS = 512
_COUNT_DIGITS = 12
#: Forms of an amount and of a currency, whatever a pod sends.
_AMOUNT, _CURRENCY = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?"), re.compile(r"[A-Z]{3}")
#: Longer than any run: bounds the text in status, whatever numbers a pod sends.
_LONGEST_SECONDS = 10**9


@dataclass(frozen=True, slots=True)
class EvaluationView:
    """Values from which the status is built.

    Attributes:
        inputs: None while there is no candidate.
        step: step of the evaluate stage.
        candidate_missing: why there is no candidate yet.
        progress: the latest update of the current attempt's pods.
        other_runs: the other EvalRuns of the namespace that have a verdict.
        verdicts: the ConfigMaps that keep verdicts on artifacts.
    """

    inputs: Inputs | None
    step: Step
    candidate_missing: str | None = None
    progress: TrainerStatus | None = None
    other_runs: tuple[Body, ...] = ()
    verdicts: tuple[Body, ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on a report, with the gates' verdicts, its reason and a sentence."""

    verdict: Verdict
    by_gate: tuple[tuple[Gate, GateVerdict], ...]
    reason: EvalRunReason
    message: str


def judge_run(run: EvalRun, inputs: Inputs | None, report: EvaluationReport | None) -> Judgement | None:
    """Judge a report by the gates of the run; None without a report.

    Without the inputs the verdict is that of the evidence alone, as the record tells it. The gates are then those of
    the spec, and are left out where they don't come to the same verdict.
    """
    if report is None:
        return None
    if inputs is not None:
        config = inputs.config
        assert isinstance(config, EvaluateConfig)
        return _judgement(config.gates, judge_evaluation(config, report))
    verdict, gates = judge_report(report), resolve_gates(run.spec)
    if len(gates) == len(report.gates):
        judged = judge(gates, report.gates, report.confidence)
        if judged.verdict is verdict:
            return _judgement(gates, judged)
    return Judgement(verdict, (), _REASONS[verdict], f"{verdict}: {_LOST_INPUTS}")


def _count_runs(run: EvalRun, report: EvaluationReport, view: EvaluationView) -> int:
    """Number of runs of this candidate by this policy up to this one: who runs until it passes is seen to do so.

    Of an artifact, runs that were deleted count as well.
    """

    def place(metadata: Mapping[str, Any]) -> tuple[str, str]:
        return str(metadata.get("creationTimestamp") or ""), str(metadata["name"])

    candidate = report.compared[0].digest if report.compared else ""
    own = place(run.metadata.model_dump(mode="json", by_alias=True))
    earlier = 0
    for body in view.other_runs:
        status = body.get("status") or {}
        same_candidate = (status.get("candidate") or {}).get("digest") == candidate
        same_policy = status.get("policyDigest") == report.policy_digest
        earlier += bool(candidate) and same_candidate and same_policy and place(body["metadata"]) < own
    kept = own_verdict(run, view.step.last_record(Stage.EVALUATE), view.verdicts)
    return max(earlier + 1, kept[1].run if kept else 1)


def _judgement(gates: Sequence[Gate], judged: ComparisonVerdict) -> Judgement:
    by_gate = tuple(zip(gates, judged.gates, strict=True))
    sentences = [describe_gate(gate, result) for gate, result in by_gate]
    message = f"{judged.verdict}: {'; '.join(sentences)}."
    return Judgement(judged.verdict, by_gate, _REASONS[judged.verdict], message)


_LOST_INPUTS = (
    "the record of the run says so. Its inputs are gone, so the results of single gates can't be shown."
)

_REASONS = {
    Verdict.PASS: EvalRunReason.PASSED,
    Verdict.FAIL: EvalRunReason.NOT_PASSED,
    Verdict.INCONCLUSIVE: EvalRunReason.INCONCLUSIVE,
}


def build_evaluation_status(run: EvalRun, view: EvaluationView, now: datetime) -> dict[str, Any]:
    """The whole status as a plain dict."""
    report, last = view.step.report(Stage.EVALUATE), view.step.last_record(Stage.EVALUATE)
    evaluation = report.evaluation if report else None
    judgement = judge_run(run, view.inputs, evaluation)
    phase = _phase(view)
    over = phase in {EvalRunPhase.SUCCEEDED, EvalRunPhase.FAILED}
    status = EvalRunStatus(
        phase=phase,
        observed_generation=run.metadata.generation,
        verdict=judgement.verdict if judgement else None,
        candidate=_shown_side(view, 0, evaluation) or _recorded_side(run.status.candidate, 0, evaluation),
        baseline=_shown_side(view, 1, evaluation) or _recorded_side(run.status.baseline, 1, evaluation),
        references=_shown_references(view, evaluation),
        base_model_revision=evaluation.base_model_revision if evaluation else "",
        policy_digest=evaluation.policy_digest if evaluation else "",
        runs=_count_runs(run, evaluation, view) if evaluation else None,
        results=tuple(_comparison(result, judgement) for result in evaluation.results) if evaluation else (),
        gates=tuple(gate_status(gate, result) for gate, result in judgement.by_gate) if judgement else (),
        sides=tuple(_side_results(evaluation)) if evaluation else (),
        suites=_suite_counts(view, evaluation) if evaluation else (),
        change=headline_change((gate for gate, _ in judgement.by_gate), evaluation.results)
        if evaluation and judgement
        else "",
        table=results_table(evaluation.results, judgement.by_gate) if evaluation and judgement else "",
        report=_report(evaluation) if evaluation else None,
        answers=ArtifactRef.model_validate(evaluation.details.to_dict()) if evaluation else None,
        requests=_requests(run, view),
        progress=_progress(view),
        advice=_advice(run, view, evaluation),
        cost=_cost(view, evaluation),
        notes=_notes(run, view),
        failure=build_failure(last) if phase is EvalRunPhase.FAILED else None,
        start_time=view.inputs.started
        if view.inputs
        else run.status.start_time or (last and last.started_at),
        completion_time=last.ended_at if over and last else None,
        attempts=view.step.attempt,
        disruptions=view.step.children.disruptions,
    )
    updates = [*_conditions(run, view, judgement), *adopted_condition(last, run.kind)]
    conditions = merge_conditions(conditions_of(run.status.conditions), updates, run.metadata.generation, now)
    return status.to_dict() | {"conditions": conditions}


def _report(evaluation: EvaluationReport) -> ArtifactRef:
    """The report, which lies beside the answers; the answers themselves where an earlier release wrote no report."""
    details = evaluation.details
    if evaluation.report_digest is None:
        return ArtifactRef.model_validate(details.to_dict())
    folder = details.uri.rpartition("/")[0]
    uri = f"{folder}/{EVALUATION_REPORT_FILE}"
    return ArtifactRef(uri=uri, digest=evaluation.report_digest, size_bytes=evaluation.report_bytes)


def _requests(run: EvalRun, view: EvaluationView) -> ContainerRequests | None:
    """Requests of the evaluation pod; None before its inputs are known."""
    if view.inputs is None:
        return None
    config, compute = view.inputs.config, run.spec.compute
    assert isinstance(config, EvaluateConfig)
    defaults = evaluation_requests(view.inputs.parameters, config, compute.cache_volume is not None)
    return shown_requests(defaults, compute.resources)


def _phase(view: EvaluationView) -> EvalRunPhase:
    if view.candidate_missing is not None:
        return EvalRunPhase.PENDING
    match view.step.state:
        case StageState.SUCCEEDED:
            return EvalRunPhase.SUCCEEDED
        case StageState.FAILED:
            return EvalRunPhase.FAILED
        case _:
            return EvalRunPhase.RUNNING


def _config(view: EvaluationView) -> EvaluateConfig | None:
    config = view.inputs.config if view.inputs else None
    return config if isinstance(config, EvaluateConfig) else None


def _notes(run: EvalRun, view: EvaluationView) -> tuple[str, ...]:
    config = _config(view)
    notes = config.notes if config else suite_notes(run.spec)
    return tuple(note[:_NOTE_CHARACTERS] for note in notes)


def _shown_side(view: EvaluationView, index: int, evaluation: EvaluationReport | None) -> SideArtifact | None:
    """Source of a side: what was resolved before the pod, and the revision that the pod found."""
    config = _config(view)
    if config is None:
        return None
    side = config.sides[index]
    uri, digest = _source(side, config)
    if digest is None and side.is_loaded and evaluation is not None:
        digest = _revision(side, index, evaluation)
    return SideArtifact(uri=uri, digest=digest or "", served_as=side.served_as or None)


def _recorded_side(
    shown: SideArtifact | None, index: int, evaluation: EvaluationReport | None
) -> SideArtifact | None:
    """Source of a side as the record tells it, for a run whose inputs are gone.

    The record knows no location: that of an earlier status is kept if it is of the same digest.
    """
    if evaluation is None:
        return shown
    if index >= len(evaluation.compared):
        return None
    compared = evaluation.compared[index]
    if shown is not None and shown.digest == compared.digest:
        return shown
    return SideArtifact(uri="", digest=compared.digest, served_as=compared.served_as or None)


def _revision(side: Side, index: int, evaluation: EvaluationReport) -> str:
    """Revision of a model that the pod found; where the report had no room for it, empty."""
    found = [compared.digest for compared in evaluation.compared]
    found = [usage.revision for usage in evaluation.usage] or found
    revision = found[index] if index < len(found) else ""
    return revision or (evaluation.base_model_revision if side.model is None else "")


def _source(side: Side, config: EvaluateConfig) -> tuple[str, str | None]:
    """Location and digest of a side's source; None for a digest that only the pod finds."""
    stored = side.adapter or side.checkpoint or side.answers
    if stored is not None:
        return stored.uri, stored.digest
    if side.endpoint is not None:
        return f"{side.endpoint.url} {side.endpoint.model}", None
    return side.model or config.base_model or "", None


def _shown_references(
    view: EvaluationView, evaluation: EvaluationReport | None
) -> tuple[ReferenceArtifact, ...]:
    config = _config(view)
    shown = []
    for index, side in enumerate(config.sides if config else ()):
        source = _shown_side(view, index, evaluation) if index > 1 else None
        if source is not None:
            shown.append(ReferenceArtifact(name=side.name, **source.model_dump()))
    return tuple(shown)


def _advice(run: EvalRun, view: EvaluationView, evaluation: EvaluationReport | None) -> str:
    """Answer to the question of fine-tuning, where the run states the use of the model."""
    written, config = run.spec.advice, _config(view)
    if written is None or config is None or evaluation is None:
        return ""
    return advise(config, evaluation, model_use(written))


def _cost(view: EvaluationView, evaluation: EvaluationReport | None) -> EvaluationCost:
    """GPU time of all attempts; tokens and money as the pods tell them, first with their progress."""
    gpu = build_cost(view.step.children.gpu_seconds)
    if evaluation is None:
        return EvaluationCost(gpu_seconds=gpu.gpu_seconds, **_cost_so_far(view))
    if not evaluation.usage:
        return EvaluationCost(gpu_seconds=gpu.gpu_seconds)
    return EvaluationCost(
        gpu_seconds=gpu.gpu_seconds,
        prompt_tokens=sum(usage.prompt_tokens for usage in evaluation.usage),
        completion_tokens=sum(usage.completion_tokens for usage in evaluation.usage),
        amount=evaluation.amount,
        currency=evaluation.currency,
    )


def _cost_so_far(view: EvaluationView) -> dict[str, Any]:
    """Tokens and money of the attempt that runs, those of earlier attempts' answers included."""
    metrics = _running_metrics(view)
    found: dict[str, Any] = {
        name: int(metrics[name])
        for name in (PROMPT_TOKENS, COMPLETION_TOKENS)
        if _is_count(metrics.get(name))
    }
    amount, currency = metrics.get(AMOUNT, ""), metrics.get(CURRENCY, "")
    if _AMOUNT.fullmatch(amount) and _CURRENCY.fullmatch(currency):
        found |= {"amount": amount, "currency": currency}
    return found


def _running_metrics(view: EvaluationView) -> dict[str, str]:
    """Numbers that a pod of the attempt that runs told last, as it wrote them."""
    if view.progress is None or view.step.state is not StageState.RUNNING:
        return {}
    return {item.name: item.value for item in view.progress.metrics}


def _is_count(value: str | None) -> bool:
    return value is not None and value.isascii() and value.isdecimal() and len(value) <= _COUNT_DIGITS


def _progress(view: EvaluationView) -> EvaluationProgress | None:
    """Progress of the attempt that runs, as its pod told it last."""
    update = view.progress
    if update is None or view.step.state is not StageState.RUNNING:
        return None
    metrics = _running_metrics(view)
    done, total = metrics.get("current_step", ""), metrics.get("total_steps", "")
    tokens = metrics.get(COMPLETION_TOKENS, "")
    percent, seconds = update.progress_percentage, update.estimated_remaining_seconds
    known = done.isdecimal() and total.isdecimal()
    return EvaluationProgress(
        percent="" if percent is None else f"{percent}%",
        remaining="" if seconds is None else format_duration(min(seconds, _LONGEST_SECONDS)),
        answers=f"{done[:_COUNT_DIGITS]}/{total[:_COUNT_DIGITS]}" if known else "",
        tokens=int(tokens[:_COUNT_DIGITS]) if tokens.isdecimal() else None,
        updated=update.last_updated_time.replace(microsecond=0),
    )


def _comparison(result: MetricResult, judgement: Judgement | None) -> Comparison:
    verdicts = [
        judged.verdict
        for gate, judged in (judgement.by_gate if judgement else ())
        if (gate.suite, gate.metric) == (result.suite, result.metric)
    ]
    return Comparison(
        suite=result.suite,
        metric=result.metric,
        candidate=decimal(result.scores[0].value),
        baseline=decimal(result.scores[1].value),
        delta=decimal(result.delta.value),
        interval=_bounds(result.delta),
        p_value=decimal(result.p_value),
        items=result.items,
        verdict=worst(verdicts),
    )


def _suite_counts(view: EvaluationView, evaluation: EvaluationReport) -> tuple[SuiteStatus, ...]:
    """Items of each suite and what became of them; none where the inputs, which name the suites, are gone."""
    if view.inputs is None:
        return ()
    config = view.inputs.config
    assert isinstance(config, EvaluateConfig)
    return tuple(
        SuiteStatus(name=suite.name, **counts._asdict())
        for suite, counts in zip(config.suites, evaluation.suites, strict=False)
    )


def _side_results(evaluation: EvaluationReport) -> Iterable[SideResult]:
    for result in evaluation.results:
        for name, score in zip(evaluation.sides, result.scores, strict=False):
            yield SideResult(
                side=name,
                suite=result.suite,
                metric=result.metric,
                value=decimal(score.value),
                interval=_bounds(score),
            )


def _bounds(interval: Interval) -> tuple[str, str]:
    return decimal(interval.low), decimal(interval.high)


#: Reasons for which a run is refused before its GPUs are requested.
_REFUSED = frozenset(
    {EvalRunReason.DOES_NOT_FIT, EvalRunReason.DRIVER_TOO_OLD, EvalRunReason.UNSUPPORTED_GPU}
)


def _conditions(run: EvalRun, view: EvaluationView, judgement: Judgement | None) -> list[ConditionUpdate]:
    return [*_progress_conditions(run, view, judgement), *_fit_conditions(view)]


def _fit_conditions(view: EvaluationView) -> list[ConditionUpdate]:
    """Condition ``Fits`` of an evaluation on GPUs, from its inputs, or from the record where it was refused."""
    last = view.step.last_record(Stage.EVALUATE)
    if view.inputs is None and last is not None and last.reason in _REFUSED:
        message = last.failure.message if last.failure else ""
        return [ConditionUpdate(ConditionType.FITS, "False", last.reason, message)]
    fit = view.inputs.fit if view.inputs else None
    if fit is None:
        return []
    return [ConditionUpdate(ConditionType.FITS, "True" if fit.fits else "Unknown", fit.reason, fit.message)]


def _progress_conditions(
    run: EvalRun, view: EvaluationView, judgement: Judgement | None
) -> list[ConditionUpdate]:
    last = view.step.last_record(Stage.EVALUATE)
    if view.candidate_missing is not None:
        return waiting_conditions(EvalRunReason.WAITING_FOR_CANDIDATE, view.candidate_missing)
    if judgement is not None:
        return ended_conditions(True, judgement.reason, judgement.message)
    if view.step.state is StageState.FAILED and last is not None:
        return ended_conditions(False, last.reason, last.failure.message if last.failure else "")
    if view.step.state is StageState.QUEUED:
        queued = (RunReason.QUEUED, f"Attempt {view.step.attempt} {describe_queue(run)}")
        return attempt_conditions(view.step, last, queued)
    running = (EvalRunReason.EVALUATING, f"Attempt {view.step.attempt} runs.")
    return attempt_conditions(view.step, last, running)
