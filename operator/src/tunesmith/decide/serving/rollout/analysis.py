"""Checks of a rollout: what the counted requests of a step say about the candidate."""

from dataclasses import dataclass
from typing import Any

from tunesmith.api.adapterdeployment import Adapter, AnalysisCheck
from tunesmith.api.reasons import AdapterDeploymentReason as Reason
from tunesmith.api.values import duration_seconds
from tunesmith.decide.serving.evidence import Counts, Evidence
from tunesmith.decide.serving.pods.fleet import Fleet
from tunesmith.decide.serving.records.elapsed import step_pause
from tunesmith.decide.serving.records.record import RolloutCandidate, Watch
from tunesmith_contract.shared_rules.verdict import Verdict

from .guardrail import MINIMUM_FAILING_KEYS, failing_keys, is_violated, is_worse

FULL = 100


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """Result of one metric on the requests of a step; the reason says why it is not ``Pass``."""

    metric: str
    counts: Counts
    verdict: Verdict
    reason: str = ""
    message: str = ""

    @property
    def value(self) -> float | None:
        """Share of failed requests, or None without requests."""
        return self.counts.failures / self.counts.requests if self.counts.requests else None


def false_alarm_level(check: AnalysisCheck, adapter: Adapter) -> float:
    """Probability of a false alarm in one step; all steps and the rollback window share that of the rollout."""
    tests = sum(step.weight < FULL for step in adapter.rollout.steps)
    tests += duration_seconds(adapter.rollout.rollback_window) > 0
    return (1 - float(check.guardrail.confidence)) / max(tests, 1)


def evaluate_checks(evidence: Evidence, adapter: Adapter) -> tuple[CheckOutcome, ...]:
    """Result of each metric on these requests."""
    return tuple(_evaluate(check, evidence, adapter) for check in adapter.rollout.analysis.checks)


def _evaluate(check: AnalysisCheck, evidence: Evidence, adapter: Adapter) -> CheckOutcome:
    counts, guardrail = evidence.candidate.total, check.guardrail
    alpha = false_alarm_level(check, adapter)
    minimum = max(adapter.rollout.analysis.minimum_requests, 1)
    failed = f"{counts.failures} of {counts.requests} requests failed"
    if counts.abandoned:
        failed = f"{failed} ({counts.abandoned} were left by clients that waited in vain)"
    if is_violated(evidence.candidate, float(guardrail.max), alpha):
        limit = f"more than the allowed rate of {guardrail.max} at a confidence of {guardrail.confidence}"
        if is_worse(evidence.candidate, evidence.stable, alpha):
            message = f"{failed}, {limit}"
            return CheckOutcome(
                check.metric,
                counts,
                Verdict.FAIL,
                Reason.ERROR_RATE_TOO_HIGH,
                f"{message}{_of_stable(evidence)}",
            )
        message = f"{failed}, {limit}, but it is not shown to be worse than the stable version"
        return CheckOutcome(
            check.metric,
            counts,
            Verdict.INCONCLUSIVE,
            Reason.STABLE_FAILS_TOO,
            f"{message}{_of_stable(evidence)}",
        )
    if counts.requests < minimum:
        return CheckOutcome(check.metric, counts, Verdict.INCONCLUSIVE, Reason.WAITING_FOR_REQUESTS)
    return CheckOutcome(check.metric, counts, Verdict.PASS)


def _of_stable(evidence: Evidence) -> str:
    stable = evidence.stable.total
    if not stable.requests:
        return ""
    return f"; of the stable version {stable.failures} of {stable.requests} failed meanwhile"


def check_candidate(
    candidate: RolloutCandidate, evidence: Evidence, adapter: Adapter, fleet: Fleet, alias: str
) -> RolloutCandidate:
    """The candidate after a check of these requests.

    A check fails by new evidence only: requests since the last one that failed, or were kept from the version.
    """
    new = evidence.candidate.total.since(candidate.seen)
    judged = _judge(candidate, evidence, new, adapter, fleet, alias)
    update: dict[str, Any] = {
        "evidence": evidence,
        "check_seconds": 0,
        "seen": evidence.candidate.total,
        "engine_lost": evidence.engine_lost,
        "verdict": judged.verdict,
        "reason": str(judged.reason),
        "message": judged.message,
        "is_last": candidate.step_seconds >= step_pause(candidate, adapter),
        "unmeasured_checks": 0,
    }
    if judged.reason == Reason.NO_AGENT_CONNECTED:
        # A deployment that is scaled to zero has nobody to connect, and needs nobody to act.
        update["unmeasured_checks"] = candidate.unmeasured_checks + bool(fleet.pods)
    elif judged.verdict is Verdict.FAIL and (new.failures or new.refused):
        update["failed_checks"] = candidate.failed_checks + 1
    elif judged.reason == Reason.WAITING_FOR_REQUESTS and update["is_last"]:
        update["inconclusive_checks"] = candidate.inconclusive_checks + 1
    return candidate.model_copy(update=update)


def _judge(
    candidate: RolloutCandidate, evidence: Evidence, new: Counts, adapter: Adapter, fleet: Fleet, alias: str
) -> CheckOutcome:
    """The outcome that decides, of all metrics and of what the pods say."""
    counts = evidence.candidate.total
    if not fleet.is_heard:
        message = "no agent of a ready pod is connected to the operator"
        return CheckOutcome("", counts, Verdict.INCONCLUSIVE, Reason.NO_AGENT_CONNECTED, message)
    outcomes = evaluate_checks(evidence, adapter)
    if failed := next((outcome for outcome in outcomes if outcome.verdict is Verdict.FAIL), None):
        return failed
    if pods := fleet.open_breakers(alias, candidate.version.digest):
        clients = fleet.breaker_clients(alias, candidate.version.digest)
        return _judge_breaker(pods, clients, evidence, outcomes, adapter)
    if evidence.engine_lost > candidate.engine_lost:
        lost = evidence.engine_lost - candidate.engine_lost
        message = f"{lost} requests lost their engine since the last check; they count against no version"
        return CheckOutcome("", counts, Verdict.INCONCLUSIVE, Reason.ENGINE_LOST, message)
    if held := next((outcome for outcome in outcomes if outcome.reason == Reason.STABLE_FAILS_TOO), None):
        return held
    minimum = adapter.rollout.analysis.minimum_requests
    if counts.requests < minimum:
        message = f"has answered {counts.requests} of the {minimum} requests that a step needs"
        return CheckOutcome("", counts, Verdict.INCONCLUSIVE, Reason.WAITING_FOR_REQUESTS, message)
    return CheckOutcome("", counts, Verdict.PASS)


def _judge_breaker(
    pods: tuple[str, ...],
    clients: int,
    evidence: Evidence,
    outcomes: tuple[CheckOutcome, ...],
    adapter: Adapter,
) -> CheckOutcome:
    """An open breaker fails a check, unless one client or the stable version explain it.

    Args:
        clients: clients that saw the errors of a breaker. The sums over all pods can't tell as many: they take clients
            of several pods for the same ones.
    """
    candidate = evidence.candidate
    failed = f"{candidate.total.failures} of {candidate.total.requests} requests failed"
    message = f"{failed}, and {', '.join(pods[:3])} stopped sending requests to it after errors in a row"
    verdict = Verdict.FAIL
    # Errors that may be lost with their engine are not counted yet.
    known = max(failing_keys(candidate), clients if candidate.total.failures else 0)
    if known < MINIMUM_FAILING_KEYS:
        verdict, message = Verdict.INCONCLUSIVE, f"{message}; only one or two clients saw them"
    elif any(
        is_violated(evidence.stable, float(check.guardrail.max), false_alarm_level(check, adapter))
        for check in adapter.rollout.analysis.checks
    ):
        verdict, message = Verdict.INCONCLUSIVE, f"{message}; the stable version fails too"
    elif not outcomes:
        verdict = Verdict.INCONCLUSIVE
    return CheckOutcome("", candidate.total, verdict, Reason.BREAKER_OPEN, message)


def fold_candidate(candidate: RolloutCandidate, fleet: Fleet, alias: str, stable: str) -> Evidence:
    """Requests of the step up to the latest reports.

    Args:
        stable: digest of the stable version; empty without one.
    """
    evidence = candidate.evidence
    own = fleet.readings(alias, candidate.version.digest)
    others = fleet.readings(alias, stable) if stable else ()
    return Evidence(
        candidate=evidence.candidate.fold(own, fleet.uids, from_zero=True),
        stable=evidence.stable.fold(others, fleet.uids, from_zero=False),
    )


def fold_watch(watch: Watch, fleet: Fleet, alias: str, stable: str) -> Evidence:
    """Requests of the stable version up to the latest reports, beside those of the previous one in its last step."""
    arm = watch.evidence.candidate.fold(fleet.readings(alias, stable), fleet.uids, from_zero=False)
    return Evidence(candidate=arm, stable=watch.evidence.stable)


def find_violation(evidence: Evidence, adapter: Adapter) -> CheckOutcome | None:
    """The metric by which a stable version fails, if there is one."""
    outcomes = evaluate_checks(evidence, adapter)
    return next((outcome for outcome in outcomes if outcome.verdict is Verdict.FAIL), None)
