"""Actions of people on the rollout of an alias: each is done or refused once, and its result recorded.

=======  ==========================================================================  =================================
verb     refused if                                                                  result
=======  ==========================================================================  =================================
pause    nothing                                                                     the candidate stays at its step
resume   the spec pauses the adapter                                                 the rollout goes on
promote  no candidate, not admitted, can't be served, open breaker, paused by spec   it skips the steps that are left
abort    no candidate                                                                it gets no requests, is rejected
retry    the digest is not rejected                                                  it may be rolled out again
undo     no other version served before on this base model, or it is rejected or     that version is stable again
         out of reach
=======  ==========================================================================  =================================
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from tunesmith.api.actions import Action, Verb
from tunesmith.api.adapterdeployment import AdapterDeploymentSpec
from tunesmith.api.reasons import AdapterDeploymentReason as Reason
from tunesmith.decide.plan import Event
from tunesmith.decide.serving.admission.targets import VersionRecord, find_unreachable
from tunesmith.decide.serving.records.record import (
    MAX_RECORDED_ACTIONS,
    ActionOutcome,
    AliasRecord,
    Lift,
    Rejection,
    Undo,
)
from tunesmith.decide.serving.records.versions import merge_records
from tunesmith_contract.agent import MAX_REJECTED_DIGESTS, Version

from .requested_actions import RequestedActions, fingerprint, has_same_id
from .transition import AliasContext, describe
from .undo import finish_undo

#: The record after the action, None if it is refused; and a sentence that says what happens, or what to write.
ActionResult = tuple[AliasRecord | None, str]


@dataclass(frozen=True, slots=True)
class ActionContext:
    """Inputs of an action on one alias, beside its record.

    Attributes:
        alias: the context of its rollout, with the version that the source names.
        spec: the specification of the resource.
        versions: the versions of the alias, with what the record says of them.
    """

    alias: AliasContext
    spec: AdapterDeploymentSpec
    versions: tuple[VersionRecord, ...]

    @property
    def now(self) -> datetime:
        """Time of this pass."""
        return self.alias.now


@dataclass(frozen=True, slots=True)
class ActedRecord:
    """Record after the actions of a pass.

    Attributes:
        faults: sentences about actions whose ID was used for something else.
    """

    record: AliasRecord
    events: tuple[Event, ...] = ()
    faults: tuple[str, ...] = ()


def apply_actions(
    record: AliasRecord, context: ActionContext, requested: RequestedActions, known: Iterable[str]
) -> ActedRecord:
    """Record after the actions that are not known yet, one after another.

    Args:
        known: fingerprints of the actions that the history of the name knows.
    """
    events: list[Event] = []
    faults: list[str] = []
    seen = [outcome.fingerprint for outcome in record.actions] + list(known)
    for action in requested.of(record.name):
        mark = fingerprint(action)
        if mark in seen:
            continue
        if any(has_same_id(mark, other) for other in seen):
            faults.append(f"{record.name}: the id {action.id} was used for another action: write a new id")
            continue
        seen.append(mark)
        context = replace(context, versions=merge_records(context.versions, [record]))
        record, event = _apply(record, context, action, requested.manager)
        events.append(event)
    return ActedRecord(record, tuple(events), tuple(faults))


def _apply(
    record: AliasRecord, context: ActionContext, action: Action, manager: str
) -> tuple[AliasRecord, Event]:
    """Record with the action's result, and the event about it."""
    changed, message = _VERBS[action.verb](record, context, action)
    outcome = ActionOutcome(
        id=action.id,
        fingerprint=fingerprint(action),
        verb=action.verb.value,
        digest=action.digest or "",
        to_version=action.to_version,
        by=action.by,
        manager=manager,
        reason=action.reason,
        time=context.now,
        done=changed is not None,
        message=message,
    )
    after = changed or record
    after = after.model_copy(update={"actions": (outcome, *after.actions)[:MAX_RECORDED_ACTIONS]})
    by = " of ".join(filter(None, (manager, action.by)))
    asked = f"{record.name}: {action.verb} ({action.id}{f', by {by}' if by else ''})"
    reason = f" Reason given: {action.reason}" if action.reason else ""
    if changed is None:
        return after, Event(Reason.ACTION_REFUSED, f"{asked} is refused: {message}{reason}", "Warning")
    return after, Event(Reason.ACTION_DONE, f"{asked}: {message}{reason}")


def _find_mismatch(record: AliasRecord, action: Action) -> str:
    """Why the action means another version than the candidate; empty if it does not."""
    candidate = record.candidate
    if candidate is None:
        return "no version is being rolled out"
    if action.means(candidate.version.digest):
        return ""
    return f"{describe(candidate.version)} is being rolled out: write its digest, or none"


def _pause(record: AliasRecord, context: ActionContext, action: Action) -> ActionResult:
    if action.digest is not None and (mismatch := _find_mismatch(record, action)):
        return None, mismatch
    return record.model_copy(update={"paused": True}), "rollouts stay at their step until the action resume"


def _resume(record: AliasRecord, context: ActionContext, action: Action) -> ActionResult:
    if action.digest is not None and (mismatch := _find_mismatch(record, action)):
        return None, mismatch
    if context.alias.adapter.paused:
        return None, "paused is true in spec.adapters: write paused: false there"
    message = "the rollout goes on" if record.paused else "no action had paused it"
    return record.model_copy(update={"paused": False}), message


def _promote(record: AliasRecord, context: ActionContext, action: Action) -> ActionResult:
    alias, target, fleet = record.name, context.alias.target, context.alias.fleet
    candidate = record.candidate
    if mismatch := _find_mismatch(record, action):
        is_withheld = candidate is None and target.version is not None and not target.admitted
        return None, f"{mismatch}: {target.message}" if is_withheld else mismatch
    assert candidate is not None
    digest = candidate.version.digest
    if record.undo is None and not target.admitted:
        return None, f"the gate is not open: {target.message}"
    if failed := fleet.final_failure(alias, digest):
        return None, f"it can't be served: {failed[1].reason}: {failed[1].message}"
    if pods := fleet.open_breakers(alias, digest):
        named = ", ".join(pods[:3])
        return (
            None,
            f"after errors in a row {named} sends it no requests; write abort, or wait for another step",
        )
    if context.alias.adapter.paused:
        return None, "paused is true in spec.adapters: write paused: false there"
    skipping = candidate.model_copy(update={"skips_steps": True})
    message = f"{describe(candidate.version)} gets all requests as soon as it is active on the pods"
    return record.model_copy(update={"candidate": skipping, "paused": False}), message


def _abort(record: AliasRecord, context: ActionContext, action: Action) -> ActionResult:
    if mismatch := _find_mismatch(record, action):
        advice = "; to leave the stable version, write undo" if record.candidate is None else ""
        return None, f"{mismatch}{advice}"
    assert record.candidate is not None
    version = record.candidate.version
    if record.undo is not None:
        message = f"the undo to {describe(version)} is given up; it is not rejected"
        return record.model_copy(update={"candidate": None, "undo": None}), message
    message = f"{describe(version)} gets no more requests and is rejected"
    return _take_back(record, Reason.ABORTED, "a user aborted the rollout", action, context.now), message


def _take_back(record: AliasRecord, reason: Reason, cause: str, action: Action, now: datetime) -> AliasRecord:
    """Record without a candidate, whose digest is rejected by the user's word."""
    assert record.candidate is not None
    rejection = Rejection(
        version=record.candidate.version,
        reason=reason,
        message=f"{cause}: {action.reason}" if action.reason else cause,
        time=now,
        by=action.by,
    )
    return record.model_copy(update={"candidate": None}).with_rejection(rejection)


def _retry(record: AliasRecord, context: ActionContext, action: Action) -> ActionResult:
    rejected = {known.version.digest: known for known in context.versions if known.rejected is not None}
    named = context.alias.target.version
    if action.digest is None:
        meant = [named.digest] if named is not None and named.digest in rejected else []
    else:
        meant = [digest for digest in rejected if action.means(digest)]
    if len(meant) != 1:
        known = ", ".join(list(rejected)[:5]) or "none"
        return None, f"it names no rejected digest; write digest, of these: {known}"
    version = rejected[meant[0]]
    assert version.rejected is not None
    # A clock that was set back since must not keep the rejection alive.
    lift = Lift(digest=meant[0], time=max(context.now, version.rejected), by=action.by, reason=action.reason)
    others = tuple(other for other in record.lifts if other.digest != lift.digest)
    is_named = named is not None and named.digest == lift.digest
    rest = "is rolled out like any other" if is_named else "may be rolled out again once the source names it"
    lifts = (lift, *others)[:MAX_REJECTED_DIGESTS]
    return record.model_copy(update={"lifts": lifts}), f"{describe(version.version)} {rest}"


def _undo(record: AliasRecord, context: ActionContext, action: Action) -> ActionResult:
    found = _find_earlier(record, context, action)
    if isinstance(found, str):
        return None, found
    stable = record.stable
    assert stable is not None
    source = context.alias.target.version
    left = [stable.digest, *([source.digest] if source else [])]
    undo = Undo(version=found, left=tuple(dict.fromkeys(left)), by=action.by, reason=action.reason)
    if record.candidate is not None and record.undo is None:
        record = _take_back(record, Reason.UNDONE, f"undone to {describe(found)}", action, context.now)
    elif record.candidate is not None:
        record = record.model_copy(update={"candidate": None})
    previous = record.watch.previous
    is_kept = previous is not None and previous.digest == found.digest
    if is_kept and context.alias.fleet.is_active_on_half(record.name, found.digest):
        message = f"{describe(found)} answers all requests again, {describe(stable)} is rejected"
        return finish_undo(record, undo, context.now), message
    watch = record.watch.model_copy(update={"previous": None})
    message = (
        f"{describe(found)} is loaded, and answers all requests once it is active; then "
        f"{describe(stable)} is rejected"
    )
    return record.model_copy(update={"undo": undo, "watch": watch}), message


def _find_earlier(record: AliasRecord, context: ActionContext, action: Action) -> Version | str:
    """The version to go back to, or why there is none."""
    stable, candidate = record.stable, record.candidate
    if stable is None:
        return "no version is stable yet"
    served = [known for known in context.versions if known.promoted is not None]
    found = _find_named(record, context, action)
    if found is None:
        numbers = [
            str(known.version.version)
            for known in served
            if known.version.digest != stable.digest and _fits(known, record)
        ]
        where = f" on {record.model}" if record.model else ""
        return f"it names no version that served before{where}; these did: {', '.join(numbers) or 'none'}"
    version = found.version
    if version.digest == stable.digest:
        return f"{describe(version)} is the stable one"
    if candidate is not None and candidate.version.digest == version.digest:
        return f"{describe(version)} is being rolled out: write promote"
    if found not in served:
        return f"{describe(version)} has never answered all requests: name it as source"
    if found.rejected is not None:
        return f"{describe(version)} is rejected: write retry with its digest first"
    if not _fits(found, record):
        return (
            f"{describe(version)} served on {found.model}, and the pods are on {record.model}: to go back, write "
            f"baseModel.uri: {found.model} and name {version.uri} as source"
        )
    return find_unreachable(version, context.spec) or version


def _fits(known: VersionRecord, record: AliasRecord) -> bool:
    """True unless the version is known to have served on another base model than that of the pods."""
    return not known.model or not record.model or known.model == record.model


def _find_named(record: AliasRecord, context: ActionContext, action: Action) -> VersionRecord | None:
    """The version that the action names; the one that served before the stable one if it names none."""
    if action.to_version is not None or action.digest is not None:
        named = [
            known
            for known in context.versions
            if action.to_version in (None, known.version.version) and action.means(known.version.digest)
        ]
        return named[0] if len(named) == 1 else None
    stable, previous = record.stable, record.watch.previous
    left = {stable.digest} if stable else set()
    eligible = [
        (known.promoted, known.version.version, known)
        for known in context.versions
        if known.promoted is not None
        and known.rejected is None
        and known.version.digest not in left
        and _fits(known, record)
    ]
    loaded = [row for row in eligible if previous is not None and row[2].version.digest == previous.digest]
    return max(loaded or eligible, key=lambda row: row[:2], default=(None, None, None))[2]


_Verb = Callable[[AliasRecord, ActionContext, Action], ActionResult]
_VERBS: Mapping[Verb, _Verb] = {
    Verb.PAUSE: _pause,
    Verb.RESUME: _resume,
    Verb.PROMOTE: _promote,
    Verb.ABORT: _abort,
    Verb.RETRY: _retry,
    Verb.UNDO: _undo,
}
