"""Updates of status conditions, in the form that metav1 and kstatus define."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from tunesmith.api.crd import UNSEEN_TIME


@dataclass(frozen=True, slots=True)
class ConditionUpdate:
    """New status, reason and message of a condition."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""


def timestamp(now: datetime) -> str:
    """RFC 3339 in UTC, whole seconds, as Kubernetes writes times."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def merge_conditions(
    conditions: Iterable[Mapping[str, Any]],
    updates: Iterable[ConditionUpdate],
    generation: int,
    now: datetime,
) -> list[dict[str, Any]]:
    """The conditions with the updates merged in, one per type, in a fixed order.

    ``lastTransitionTime`` changes only with ``status``, and once when it replaces the placeholder time of the schema's
    default.
    """
    merged = {condition["type"]: dict(condition) for condition in conditions}
    for update in updates:
        before = merged.get(update.type)
        unchanged = (
            before is not None
            and before["status"] == update.status
            and before["lastTransitionTime"] != UNSEEN_TIME
        )
        merged[update.type] = {
            "type": update.type,
            "status": update.status,
            "reason": update.reason,
            "message": update.message,
            "observedGeneration": generation,
            "lastTransitionTime": before["lastTransitionTime"] if before and unchanged else timestamp(now),
        }
    return [merged[kind] for kind in sorted(merged)]
