"""Status of a resource that is invalid or can't be reconciled, the same for every kind."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from tunesmith.api.reasons import ConditionType

from .conditions import ConditionUpdate, merge_conditions
from .plan import Event, Plan

MAX_MESSAGE = 1024

#: Parts of the API server's words that differ from try to try: what others use of a quota, and names of pods.
_USED = re.compile(r", used: [^:]*(?=, limited: )")
_POD_NAME = re.compile(r'\bpods? "[^"]*"')


class RefusalReason(StrEnum):
    """Reasons of conditions and events of a resource that is not reconciled.

    INVALID: a person has to change the resource. REFUSED: the API server refused an object, by admission, quota, Pod
    Security or permissions; tried again with back-off. NAME_TAKEN: an object of that name exists and belongs to
    somebody else; tried again with back-off. UNAVAILABLE: the API server failed several times in a row; tried again.
    INTERNAL: a fault of the operator; tried again.
    """

    INVALID = "Invalid"
    REFUSED = "Refused"
    NAME_TAKEN = "NameTaken"
    UNAVAILABLE = "ApiUnavailable"
    INTERNAL = "InternalError"


def plan_invalid(body: Mapping[str, Any], error: ValueError, now: datetime) -> Plan:
    """Plan for a resource that is invalid: Stalled until a person changes it."""
    message = describe(error)
    updates = (
        ConditionUpdate("Ready", "False", RefusalReason.INVALID, message),
        ConditionUpdate("Reconciling", "False", RefusalReason.INVALID),
        ConditionUpdate("Stalled", "True", RefusalReason.INVALID, message),
    )
    return _plan(body, updates, RefusalReason.INVALID, message, now)


def plan_refusal(body: Mapping[str, Any], reason: RefusalReason, message: str, now: datetime) -> Plan:
    """Plan for a resource whose reconcile failed and is tried again: not ready, with the reason."""
    message = _shorten(steady_words(message))
    updates = (
        ConditionUpdate("Ready", "False", reason, message),
        ConditionUpdate("Reconciling", "True", reason, message),
    )
    return _plan(body, updates, reason, message, now)


def show_refused(
    body: Mapping[str, Any], status: Mapping[str, Any], refused: Iterable[ConditionUpdate], now: datetime
) -> dict[str, Any]:
    """A planned status with the conditions of actions that were refused.

    A resource whose Job is refused is not ready either.

    Args:
        body: the resource with its present status.
        status: the status as planned, as if all actions were done.
        refused: a condition of status False for each refused action.
    """
    planned = {
        item["type"]: ConditionUpdate(item["type"], item["status"], item["reason"], item["message"])
        for item in status.get("conditions", ())
    }
    for update in refused:
        planned[update.type] = update
        if update.type == ConditionType.JOB_CREATED:
            ready, reconciling = ConditionType.READY, ConditionType.RECONCILING
            planned[ready] = ConditionUpdate(ready, "False", update.reason, update.message)
            planned[reconciling] = ConditionUpdate(reconciling, "True", update.reason, update.message)
    before = (body.get("status") or {}).get("conditions", ())
    known = [item for item in before if item["type"] in planned]
    generation = body["metadata"].get("generation", 1)
    return {**status, "conditions": merge_conditions(known, planned.values(), generation, now)}


def refused_condition(kind: str, reason: RefusalReason, message: str) -> ConditionUpdate:
    """Condition of an action that was refused."""
    return ConditionUpdate(kind, "False", reason, _shorten(steady_words(message)))


def without_invalid(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body without a ``Stalled`` that an earlier, invalid form of the resource left behind."""
    status = body.get("status") or {}
    conditions = [
        item
        for item in status.get("conditions", ())
        if (item["type"], item.get("reason")) != ("Stalled", RefusalReason.INVALID)
    ]
    return {**body, "status": {**status, "conditions": conditions}} if status else dict(body)


def describe(error: ValueError) -> str:
    """One sentence per mistake, each with the field that it is about."""
    if not isinstance(error, ValidationError):
        return _shorten(str(error))
    mistakes = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
    return _shorten("; ".join(mistakes))


def steady_words(message: str) -> str:
    """The API server's words without what differs from try to try: else each one would write a status and an event."""
    return _POD_NAME.sub("the pod", _USED.sub("", message))


def _plan(
    body: Mapping[str, Any],
    updates: Iterable[ConditionUpdate],
    reason: RefusalReason,
    message: str,
    now: datetime,
) -> Plan:
    status = dict(body.get("status") or {})
    generation = body["metadata"].get("generation", 1)
    status["observedGeneration"] = generation
    status["conditions"] = merge_conditions(status.get("conditions", ()), updates, generation, now)
    return Plan(status=status, events=(Event(reason, message, "Warning"),))


def _shorten(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"
