"""Switch of an alias back to a version that served before, because a person asked for it.

It is immediate while pods still have that version. Otherwise that version is loaded as a candidate, and gets all
requests once it is active; the source does not count meanwhile.
"""

from datetime import datetime

from tunesmith.api.reasons import AdapterDeploymentReason as Reason
from tunesmith.decide.serving.admission.targets import TargetVersion
from tunesmith.decide.serving.records.record import AliasRecord, Rejection, Undo, Watch

from .stable_version import switch_back
from .transition import describe


def aimed_target(record: AliasRecord, target: TargetVersion) -> TargetVersion:
    """Version that the transitions work towards: that of an undo under way, or else that of the source."""
    if record.undo is None:
        return target
    return TargetVersion(version=record.undo.version, reachable=True, admitted=True)


def without_settled_undo(record: AliasRecord, target: TargetVersion) -> AliasRecord:
    """Record in which an undo has ended, if its version was rejected, or the source names another one since.

    Args:
        target: the version that the source names.
    """
    if record.undo is None:
        return record
    is_superseded = target.version is not None and target.version.digest not in record.undo.left
    if is_superseded or record.is_rejected(record.undo.version.digest):
        return record.model_copy(update={"undo": None})
    return record


def finish_undo(record: AliasRecord, undo: Undo, now: datetime) -> AliasRecord:
    """Record in which the version of the undo is stable, and the one that was is rejected."""
    left = record.stable
    switched = switch_back(
        record.model_copy(
            update={
                "watch": Watch(previous=undo.version),
                "candidate": None,
                "restored": False,
                "undo": None,
            }
        ),
        now,
    )
    if left is None:
        return switched
    cause = f"undone to {describe(undo.version)}" + (f": {undo.reason}" if undo.reason else "")
    return switched.with_rejection(
        Rejection(version=left, reason=Reason.UNDONE, message=cause, time=now, by=undo.by)
    )
