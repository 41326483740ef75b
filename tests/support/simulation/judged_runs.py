"""EvalRuns that ended with a verdict, with their records."""

from datetime import datetime
from typing import Any

from tunesmith.decide.serving.admission.evaluations import ObservedEvalRun
from tunesmith.manifests.result_config_map import RECORD_KEY, AttemptOutcome, AttemptRecord
from tunesmith_contract.report import (
    Artifact,
    ComparedSide,
    EvaluationReport,
    GateEvidence,
    Outcome,
    RunReport,
)
from tunesmith_contract.stages import Stage

EVIDENCE = {
    "Pass": GateEvidence(items=100, threshold=0, p_pass=0.001, p_fail=0.999),
    "Fail": GateEvidence(items=100, threshold=0, p_pass=0.999, p_fail=0.001),
    "Inconclusive": GateEvidence(items=100, threshold=0, p_pass=0.4, p_fail=0.6, more_items=500),
}


def judged_run(
    name: str,
    digest: str,
    verdict: str,
    ended: datetime,
    policy_digest: str,
    *,
    is_bare: bool = True,
    baseline: ComparedSide | None = None,
) -> ObservedEvalRun:
    """An EvalRun with a verdict in status and the evidence for it in its record.

    Args:
        digest: digest of the candidate.
        is_bare: the candidate was asked without a prompt of its own.
        baseline: the baseline; the base model if it is None.
    """
    details = Artifact(uri="pvc://artifacts/items.jsonl", digest=digest, size_bytes=1)
    report = EvaluationReport(
        sides=("candidate", "baseline"),
        results=(),
        gates=(EVIDENCE[verdict],),
        compared=(ComparedSide(digest, is_bare=is_bare), baseline or ComparedSide("main")),
        policy_digest=policy_digest,
        details=details,
    )
    record = AttemptRecord(
        stage=Stage.EVALUATE,
        attempt=1,
        outcome=AttemptOutcome.SUCCEEDED,
        reason="Succeeded",
        report=RunReport(stage="evaluate", outcome=Outcome.SUCCEEDED, evaluation=report),
        ended_at=ended,
    )
    status: dict[str, Any] = {"verdict": verdict, "candidate": {"uri": "pvc://artifacts/x", "digest": digest}}
    config_map = {"metadata": {"name": f"{name}-result-evaluate-1"}, "data": {RECORD_KEY: record.to_json()}}
    metadata = {"name": name, "uid": f"uid-of-{name}"}
    return ObservedEvalRun({"metadata": metadata, "status": status}, (config_map,))
