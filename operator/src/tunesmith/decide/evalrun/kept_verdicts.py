"""Copy of an EvalRun's verdict, which stays when the EvalRun is deleted."""

from collections.abc import Sequence

from tunesmith.api.evalrun import EvalRun
from tunesmith.decide.plan import Action, Create, Patch
from tunesmith.manifests.objects import Body
from tunesmith.manifests.result_config_map import AttemptRecord
from tunesmith.manifests.verdict_records import (
    VerdictRecord,
    build_verdicts,
    has_verdicts,
    number_of,
    read_verdicts,
    superseded,
    verdicts_name,
)
from tunesmith_contract.report import EvaluationReport
from tunesmith_contract.shared_rules.verdict import judge_report


def own_verdict(
    run: EvalRun, record: AttemptRecord | None, config_maps: Sequence[Body]
) -> tuple[str, VerdictRecord] | None:
    """Digest of the candidate, and the verdict on it; None for a run without a verdict on an artifact.

    Args:
        record: the last record of the run.
        config_maps: the ConfigMaps of verdicts in the namespace.
    """
    evaluation = _evaluation(record)
    if record is None or evaluation is None or not evaluation.compared:
        return None
    digest = evaluation.compared[0].digest
    if not has_verdicts(digest):
        return None
    verdict = VerdictRecord(
        uid=run.metadata.uid,
        name=run.metadata.name,
        policy_digest=evaluation.policy_digest,
        verdict=judge_report(evaluation),
        ended_at=record.ended_at,
    )
    others = [other for other in read_verdicts(config_maps, digest) if other.uid != _adopted_uid(record)]
    number = number_of(verdict, others)
    return digest, verdict.model_copy(update={"run": number})


def keep_verdict(
    run: EvalRun, record: AttemptRecord | None, config_maps: Sequence[Body]
) -> tuple[Action, ...]:
    """Actions that write the verdict, if it is not written yet.

    They come before the run's own record: a run whose verdict can be read has left it here as well.
    """
    own = own_verdict(run, record, config_maps)
    if own is None:
        return ()
    digest, verdict = own
    known = read_verdicts(config_maps, digest)
    if any(_is_same(verdict, other) for other in known):
        return ()
    # A verdict that was taken over is one run, under the UID of the EvalRun that exists.
    former = {other.uid for other in known if other.uid == _adopted_uid(record)}
    own_uids = former | {verdict.uid}
    dropped = superseded([*(other for other in known if other.uid not in own_uids), verdict])
    if verdict.uid in dropped:
        return ()
    dropped |= former
    namespace, name = run.metadata.namespace, verdicts_name(digest)
    patch = {"data": {**dict.fromkeys(sorted(dropped)), verdict.uid: verdict.to_json()}}
    return (
        Create(build_verdicts(namespace, digest, verdict)),
        Patch("v1", "ConfigMap", namespace, name, patch),
    )


def _adopted_uid(record: AttemptRecord | None) -> str | None:
    """UID of the deleted EvalRun whose verdict was taken over."""
    return record.adopted.uid if record is not None and record.adopted is not None else None


def _is_same(verdict: VerdictRecord, other: VerdictRecord) -> bool:
    """True for the same verdict of the same run, whatever its number was when it was written."""
    return verdict == other.model_copy(update={"run": verdict.run})


def _evaluation(record: AttemptRecord | None) -> EvaluationReport | None:
    return record.report.evaluation if record is not None and record.report is not None else None
