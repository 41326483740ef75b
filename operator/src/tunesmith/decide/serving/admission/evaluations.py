"""Verdicts that admit versions: read from the records of EvalRuns, the newest of each policy.

A verdict outlives its EvalRun, but only against the artifact: what is not a Pass goes on standing in the way of earlier
verdicts by the same policy, and a Pass opens the gate only while its EvalRun exists.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import ValidationError

from tunesmith.api.evalrun import EvalRunStatus
from tunesmith.manifests.objects import Body
from tunesmith.manifests.result_config_map import AttemptOutcome, AttemptRecord, parse_result
from tunesmith.manifests.verdict_records import VerdictRecord, read_all_verdicts
from tunesmith_contract.base import short_digest
from tunesmith_contract.shared_rules.verdict import Verdict, judge_report


@dataclass(frozen=True, slots=True)
class ObservedEvalRun:
    """An EvalRun with the ConfigMaps that it owns."""

    body: Body
    config_maps: tuple[Body, ...] = ()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Verdict of an EvalRun about an artifact, by its record.

    Attributes:
        digest: digest of the candidate.
        ended: end of the run.
        is_bare: the candidate was asked as an alias is: without a prompt of its own, and with the template switches of
            its training.
        baseline_digest: digest of the baseline, or the revision of its model.
        baseline_alias: the alias whose version the baseline was, as ``deployment/adapter``; else empty.
        baseline_is_bare: so was the baseline.
        confirmed: status says the same verdict as the record.
        gone: the EvalRun or its record was deleted; the verdict is known from what is kept beside it.
        run: number of the run among those of this artifact and policy, as far as it is known.
    """

    name: str
    digest: str
    verdict: Verdict
    policy_digest: str
    ended: datetime
    is_bare: bool = True
    baseline_digest: str = ""
    baseline_alias: str = ""
    baseline_is_bare: bool = True
    confirmed: bool = True
    gone: bool = False
    run: int = 1

    @property
    def stands(self) -> bool:
        """True if it opens the gate or keeps it shut; a Pass whose EvalRun was deleted does neither."""
        return not self.gone or self.verdict is not Verdict.PASS

    @property
    def title(self) -> str:
        """Name of the run for messages."""
        return f"{self.name} (deleted)" if self.gone else self.name


#: Of two runs that ended in the same second the worse one counts.
_BEST_FIRST = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL)


def _age(evaluation: Evaluation) -> tuple[datetime, int, str]:
    return evaluation.ended, _BEST_FIRST.index(evaluation.verdict), evaluation.name


def read_evaluations(
    runs: Iterable[ObservedEvalRun], verdicts: Iterable[Body] = ()
) -> tuple[Evaluation, ...]:
    """Verdicts by the records of EvalRuns, and those of deleted ones, the oldest first.

    Status alone counts for nothing, since other accounts may be allowed to write it. A record alone opens no gate,
    since a run that the operator has not ended yet has no verdict; but it stands in the way of earlier ones, as else a
    changed status could hide a run that did not pass.

    Args:
        runs: the EvalRuns with their records.
        verdicts: ConfigMaps that keep the verdicts on artifacts.
    """
    read = [(run.body["metadata"].get("uid", ""), _read_evaluation(run)) for run in runs]
    found = [(uid, evaluation) for uid, evaluation in read if evaluation is not None]
    kept = [(digest, record) for digest, records in read_all_verdicts(verdicts).items() for record in records]
    numbers = {(digest, record.uid): record.run for digest, record in kept}
    present = [replace(evaluation, run=numbers.get((evaluation.digest, uid), 1)) for uid, evaluation in found]
    uids = {uid for uid, _ in found}
    gone = [_read_kept(digest, record) for digest, record in kept if record.uid not in uids]
    return tuple(sorted([*present, *gone], key=_age))


def _read_kept(digest: str, record: VerdictRecord) -> Evaluation:
    return Evaluation(
        name=record.name,
        digest=digest,
        verdict=record.verdict,
        policy_digest=record.policy_digest,
        ended=record.ended_at,
        gone=True,
        run=record.run,
    )


def newest_by_policy(evaluations: Iterable[Evaluation]) -> dict[str, Evaluation]:
    """The newest verdict of each policy that stands. Earlier ones of the same policy no longer count."""
    standing = [evaluation for evaluation in evaluations if evaluation.stands]
    return {evaluation.policy_digest: evaluation for evaluation in sorted(standing, key=_age)}


def _read_evaluation(run: ObservedEvalRun) -> Evaluation | None:
    record = _newest_success([found for found in map(parse_result, run.config_maps) if found])
    if record is None or record.report is None or record.report.evaluation is None:
        return None
    report = record.report.evaluation
    verdict = judge_report(report)
    # A record of an earlier release does not say who was compared.
    if len(report.compared) < 2 or not report.compared[0].digest:
        return None
    candidate, baseline = report.compared
    return Evaluation(
        name=run.body["metadata"]["name"],
        digest=candidate.digest,
        verdict=verdict,
        policy_digest=report.policy_digest,
        ended=record.ended_at,
        is_bare=candidate.is_bare,
        baseline_digest=baseline.digest,
        baseline_alias=baseline.served_as,
        baseline_is_bare=baseline.is_bare,
        confirmed=verdict is _told_verdict(run),
    )


def _told_verdict(run: ObservedEvalRun) -> Verdict | None:
    """The verdict in the status; None if it has none, or was edited into something that can't be read."""
    try:
        return EvalRunStatus.model_validate(run.body.get("status") or {}).verdict
    except ValidationError:
        return None


def _newest_success(records: Sequence[AttemptRecord]) -> AttemptRecord | None:
    succeeded = [record for record in records if record.outcome is AttemptOutcome.SUCCEEDED]
    return max(succeeded, key=lambda record: record.attempt, default=None)


@dataclass(frozen=True, slots=True)
class GateRequirement:
    """What an adapter asks of the verdicts on a version.

    Attributes:
        alias: the adapter, as ``deployment/adapter``.
        serving: digest of the version that the alias serves; empty where it serves none yet.
        policy_digest: the policy that counts; None: any.
        against_serving: the candidate must have been compared with the version that serves.
    """

    alias: str
    serving: str
    policy_digest: str | None = None
    against_serving: bool = False


@dataclass(frozen=True, slots=True)
class GateDecision:
    """Decision on a version.

    Attributes:
        admitting: the verdict that admits it; None if none does.
        message: what is missing; empty if it is admitted.
        runs: number of verdicts by the policy of the admitting one, or of all that count.
        standing: number of policies with a verdict that stands.
    """

    admitting: Evaluation | None
    message: str = ""
    runs: int = 0
    standing: int = 0


def decide_gate(digest: str, evaluations: Iterable[Evaluation], requirement: GateRequirement) -> GateDecision:
    """Decision on the version with a digest, by the newest verdict of each policy.

    A verdict of Fail by any policy that counts refuses, so that an easier evaluation can't outvote a thorough one.
    """
    judged = [evaluation for evaluation in evaluations if evaluation.digest == digest]
    counted = [run for run in judged if requirement.policy_digest in {None, run.policy_digest}]
    newest = list(newest_by_policy(counted).values())
    needed, runs = _describe_need(digest, requirement), _count_runs(counted)
    if failed := next((run for run in newest if run.verdict is Verdict.FAIL), None):
        message = f"{needed}: {failed.title}, the newest by its policy, says Fail"
        return GateDecision(None, message, runs, len(newest))
    reasons = [(run, _refusal(run, requirement)) for run in newest]
    for run, refusal in reversed(reasons):
        if not refusal:
            same = [other for other in counted if other.policy_digest == run.policy_digest]
            return GateDecision(run, runs=_count_runs(same), standing=len(newest))
    if reasons:
        said = "; ".join(f"{run.title} {refusal}" for run, refusal in reasons[:3])
        return GateDecision(None, f"{needed}: {said}", runs, len(newest))
    if counted:
        said = ", ".join(run.name for run in counted[:3])
        return GateDecision(None, f"{needed}, and {said} no longer exists: evaluate again", runs)
    if judged:
        policies = ", ".join(f"{run.title} has {run.policy_digest or 'none'}" for run in judged[:3])
        return GateDecision(None, f"{needed}: {policies}")
    return GateDecision(None, f"{needed}, and no EvalRun has judged it")


def _count_runs(evaluations: Sequence[Evaluation]) -> int:
    """Number of runs, by policy; the first ones of a policy may be known by the numbers of later ones alone."""
    by_policy: dict[str, list[int]] = {}
    for evaluation in evaluations:
        by_policy.setdefault(evaluation.policy_digest, []).append(evaluation.run)
    return sum(max(len(numbers), *numbers) for numbers in by_policy.values())


def _describe_need(digest: str, requirement: GateRequirement) -> str:
    policy = f" and policyDigest {requirement.policy_digest}" if requirement.policy_digest else ""
    against = (
        f" against the serving version {short_digest(requirement.serving)}" if _compares(requirement) else ""
    )
    return f"an EvalRun with verdict Pass for {short_digest(digest)}{policy}{against} is needed"


def _compares(requirement: GateRequirement) -> bool:
    """True if a comparison with the serving version is asked for. The first version has none to be compared with."""
    return requirement.against_serving and bool(requirement.serving)


def _refusal(run: Evaluation, requirement: GateRequirement) -> str:
    """Cause for which a verdict does not admit the version; empty if it does."""
    if run.verdict is not Verdict.PASS:
        return f"says {run.verdict}"
    if not run.confirmed:
        return "has no verdict in status yet, or another one than in its record"
    if not run.is_bare:
        return (
            "prompted the candidate (systemPrompt, fewShot, contextColumn, or templateArguments other than those of "
            "its training), which an alias is not: evaluate it without"
        )
    if run.baseline_alias and run.baseline_alias != requirement.alias:
        return f"compared it with alias {run.baseline_alias}, not with {requirement.alias}"
    stale = run.baseline_digest != requirement.serving
    if requirement.serving and stale and (run.baseline_alias or requirement.against_serving):
        return f"compared it with {short_digest(run.baseline_digest)}, which does not serve"
    if _compares(requirement) and not run.baseline_is_bare:
        return (
            "prompted the serving version (systemPrompt, fewShot, contextColumn, or templateArguments other than those "
            "of its training), which the alias does not: compare without"
        )
    return ""
