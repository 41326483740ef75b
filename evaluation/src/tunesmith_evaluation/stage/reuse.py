"""Report of an earlier evaluation of the same spec, taken over where nothing that decides has changed."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith_contract.finished import FinishedWork
from tunesmith_contract.report import EvaluationReport, Outcome, RunReport
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_data.pod.finished import holds_file
from tunesmith_data.pod.secret_roles import workspace_roles
from tunesmith_data.pod.storage import Storage
from tunesmith_evaluation.policy.record import policy_digest

log = logging.getLogger(__name__)


def find_unchanged(
    finished: FinishedWork | None,
    config: EvaluateConfig,
    policy: Mapping[str, Any],
    revisions: Mapping[str, str],
    storage: Storage,
) -> RunReport | None:
    """The earlier report, if items, gates, prompts and models are what they were and its answers are stored.

    An endpoint does not tell which weights answer: an evaluation with one is done again.

    Args:
        policy: record of all that decides in this run.
        revisions: revision of each side's model or artifact; empty where it can't be known.

    Raises:
        StorageError: the store of the answers does not answer.
    """
    earlier = finished.evaluation if finished is not None else None
    if finished is None or earlier is None:
        return None
    sides = [side.name for side in config.sides]
    now = [revisions[side] for side in sides]
    if not all(now) or earlier.policy_digest != policy_digest(policy):
        log.info("the finished evaluation was of other items, gates or models")
        return None
    if list(earlier.sides) != sides or _revisions_of(earlier) != now:
        log.info("the finished evaluation was of other models")
        return None
    if not holds_file(earlier.details, storage, workspace_roles(config)):
        return None
    return RunReport(stage="evaluate", outcome=Outcome.SUCCEEDED, evaluation=earlier, reused=finished.uid)


def _revisions_of(report: EvaluationReport) -> Sequence[str]:
    """Revisions of the sides, as far as the report still tells them."""
    if report.usage:
        return [usage.revision for usage in report.usage]
    return [side.digest for side in report.compared]
