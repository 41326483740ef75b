"""Status of an EvalRun, rebuilt on each reconcile."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tunesmith.api.evalrun import Comparison, EvalRun, EvalRunStatus, SideArtifact, SideResult
from tunesmith.api.evaluation_suites import Gate
from tunesmith.api.reasons import ConditionType, EvalRunPhase, EvalRunReason, RunReason, Verdict
from tunesmith.api.status import ArtifactRef, ContainerRequests
from tunesmith.decide.conditions import ConditionUpdate, merge_conditions
from tunesmith.decide.fit.requests import evaluation_requests, shown_requests
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
from tunesmith.manifests.run_snapshots import Inputs
from tunesmith_contract.evaluation import Side
from tunesmith_contract.report import EvaluationReport, Interval, MetricResult
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_contract.stages import Stage

from .gates import judge_gates, worst


@dataclass(frozen=True, slots=True)
class EvaluationView:
    """Values from which the status is built.

    Attributes:
        inputs: None while there is no candidate.
        step: step of the evaluate stage.
        candidate_missing: why there is no candidate yet.
    """

    inputs: Inputs | None
    step: Step
    candidate_missing: str | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on a report, with its reason and a sentence."""

    verdict: Verdict
    by_gate: Mapping[Gate, Verdict]
    reason: EvalRunReason
    message: str


def verdict_of(gates: Sequence[Gate], report: EvaluationReport) -> Judgement:
    """Judge a report by the gates."""
    by_gate = judge_gates(gates, report.results)
    verdict = worst(by_gate.values())
    gate_verdicts = (
        f"{gate.suite}/{gate.metric} {gate.expect}: {result}" for gate, result in by_gate.items()
    )
    return Judgement(verdict, by_gate, _REASONS[verdict], f"{verdict}: {', '.join(gate_verdicts)}.")


_REASONS = {
    Verdict.PASS: EvalRunReason.PASSED,
    Verdict.FAIL: EvalRunReason.NOT_PASSED,
    Verdict.INCONCLUSIVE: EvalRunReason.INCONCLUSIVE,
}


def build_evaluation_status(run: EvalRun, view: EvaluationView, now: datetime) -> dict[str, Any]:
    """The whole status as a plain dict."""
    report, last = view.step.report(Stage.EVALUATE), view.step.last_record(Stage.EVALUATE)
    evaluation = report.evaluation if report else None
    judgement = verdict_of(run.spec.gates, evaluation) if evaluation else None
    phase = _phase(view)
    over = phase in {EvalRunPhase.SUCCEEDED, EvalRunPhase.FAILED}
    status = EvalRunStatus(
        phase=phase,
        observed_generation=run.metadata.generation,
        verdict=judgement.verdict if judgement else None,
        candidate=_side(view, 0, evaluation),
        baseline=_side(view, 1, evaluation),
        base_model_revision=evaluation.base_model_revision if evaluation else "",
        policy_digest=evaluation.policy_digest if evaluation else "",
        results=tuple(_comparison(result, judgement.by_gate) for result in evaluation.results)
        if evaluation and judgement
        else (),
        sides=tuple(_side_results(evaluation)) if evaluation else (),
        report=ArtifactRef.model_validate(evaluation.details.to_dict()) if evaluation else None,
        requests=_requests(run, view),
        cost=build_cost(view.step.children.gpu_seconds),
        failure=build_failure(last) if phase is EvalRunPhase.FAILED else None,
        start_time=view.inputs.started if view.inputs else None,
        completion_time=last.ended_at if over and last else None,
        attempts=view.step.attempt,
        disruptions=view.step.children.disruptions,
    )
    updates = _conditions(view, judgement)
    conditions = merge_conditions(conditions_of(run.status.conditions), updates, run.metadata.generation, now)
    return status.to_dict() | {"conditions": conditions}


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


def _side(view: EvaluationView, index: int, evaluation: EvaluationReport | None) -> SideArtifact | None:
    if view.inputs is None:
        return None
    config = view.inputs.config
    assert isinstance(config, EvaluateConfig)
    side: Side = config.sides[index]
    if side.adapter is not None:
        return SideArtifact(uri=side.adapter.uri, digest=side.adapter.digest)
    return SideArtifact(uri=config.base_model, digest=evaluation.base_model_revision if evaluation else "")


def _comparison(result: MetricResult, by_gate: Mapping[Gate, Verdict]) -> Comparison:
    verdicts = [
        verdict
        for gate, verdict in by_gate.items()
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
        verdict=worst(verdicts) if verdicts else None,
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


def _conditions(view: EvaluationView, judgement: Judgement | None) -> list[ConditionUpdate]:
    return [*_progress_conditions(view, judgement), *_fit_conditions(view)]


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


def _progress_conditions(view: EvaluationView, judgement: Judgement | None) -> list[ConditionUpdate]:
    last = view.step.last_record(Stage.EVALUATE)
    if view.candidate_missing is not None:
        return waiting_conditions(EvalRunReason.WAITING_FOR_CANDIDATE, view.candidate_missing)
    if judgement is not None:
        return ended_conditions(True, judgement.reason, judgement.message)
    if view.step.state is StageState.FAILED and last is not None:
        return ended_conditions(False, last.reason, last.failure.message if last.failure else "")
    if view.step.state is StageState.QUEUED:
        queued = (RunReason.QUEUED, f"Attempt {view.step.attempt} waits in its queue.")
        return attempt_conditions(view.step, last, queued)
    running = (EvalRunReason.EVALUATING, f"Attempt {view.step.attempt} runs.")
    return attempt_conditions(view.step, last, running)
