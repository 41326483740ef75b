"""How long an attempt waits for the same cause, counted from when the operator first saw it.

The time is kept in an annotation of the attempt's Job. It is compared with the operator's clock alone: times that the
API server and the nodes wrote may be ahead of it or behind.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from tunesmith.api.reasons import RunReason
from tunesmith.decide.plan import Action, Patch
from tunesmith.manifests.names import GROUP
from tunesmith.manifests.objects import Body
from tunesmith_contract.exit_codes import FailureCategory

WAITING_ANNOTATION = f"{GROUP}/waiting"

#: The run fails when something that a person has to correct is missing for so long.
CORRECTION_TIME = timedelta(minutes=10)
#: An attempt ends, and another may follow, when what should recover by itself has not for so long. The kubelet pulls an
#: image at least every 5 minutes, so this is six tries or more.
RECOVERY_TIME = timedelta(minutes=30)

#: Containers beside the trainer's have so long to end after it, before the pod is removed.
FAREWELL_TIME = timedelta(seconds=30)

_PATIENCE: Mapping[FailureCategory, timedelta] = {
    FailureCategory.USER_ERROR: CORRECTION_TIME,
    FailureCategory.INFRASTRUCTURE: RECOVERY_TIME,
}
_PATIENCE_BY_REASON: Mapping[RunReason, timedelta] = {RunReason.POD_KEPT_ALIVE: FAREWELL_TIME}


@dataclass(frozen=True, slots=True)
class Cause:
    """Cause for which pods do not start.

    Attributes:
        reason: reason of the condition that shows it.
        subject: what it is about, such as the name of a Secret; another subject is another cause.
        category: category of the failure if it lasts too long; None if time alone may help, however long it takes.
    """

    reason: RunReason
    subject: str
    category: FailureCategory | None

    @property
    def text(self) -> str:
        """The cause in the annotation."""
        return f"{self.reason} {self.category} {self.subject}"


def is_user_error_so_far(job: Body, reason: RunReason, subject: str) -> bool:
    """True where the cause that the Job waits for was last known as one that a person has to correct."""
    known = _read(job)
    return known is not None and known[0] == Cause(reason, subject, FailureCategory.USER_ERROR).text


def first_seen(job: Body, cause: Cause, now: datetime) -> datetime:
    """Since when the Job waits for this cause; now if it has waited for another one, or for none."""
    known = _read(job)
    return min(known[1], now) if known is not None and known[0] == cause.text else now


def gives_up_at(cause: Cause, since: datetime) -> datetime | None:
    """Time at which the attempt ends, unless the cause goes; None if it may wait for ever."""
    if cause.category is None:
        return None
    return since + _PATIENCE_BY_REASON.get(cause.reason, _PATIENCE[cause.category])


def remember(job: Body, cause: Cause | None, now: datetime) -> tuple[Action, ...]:
    """Actions that note since when the Job waits for a cause that ends it; None: for none, or for no such cause."""
    written = (job["metadata"].get("annotations") or {}).get(WAITING_ANNOTATION)
    if cause is None or cause.category is None:
        return () if written is None else (_annotate(job, None),)
    known = _read(job)
    if known is not None and known[0] == cause.text:
        return ()
    return (_annotate(job, json.dumps({"cause": cause.text, "since": now.isoformat()})),)


def _annotate(job: Body, text: str | None) -> Patch:
    return Patch.of(job, {"metadata": {"annotations": {WAITING_ANNOTATION: text}}})


def _read(job: Body) -> tuple[str, datetime] | None:
    """Cause and time in the annotation; None where there is none that can be read: people may write anything."""
    try:
        written = json.loads((job["metadata"].get("annotations") or {}).get(WAITING_ANNOTATION) or "null")
        cause, since = str(written["cause"]), datetime.fromisoformat(written["since"])
    except (ValueError, KeyError, TypeError):
        return None
    return (cause, since) if since.tzinfo is not None else None
