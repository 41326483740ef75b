"""Pods that a Job may not create: the API server's own words, what to do, and whether waiting can help."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from tunesmith.api.values import quantity_amount
from tunesmith.decide.plan import Action, Patch
from tunesmith.decide.refusal import steady_words
from tunesmith.manifests.names import GROUP
from tunesmith.manifests.objects import Body
from tunesmith_contract.exit_codes import FailureCategory

#: A quota is freed without a sign to those that wait for it. The Job controller tries again after up to a minute, and
#: at once when the Job changes: so the operator changes it this often.
RETRY_PERIOD = timedelta(seconds=25)
RETRIED_ANNOTATION = f"{GROUP}/creation-retried"

_QUOTA = re.compile(
    r"exceeded quota: .*?requested: (?P<requested>.*?)(, used: .*)?, limited: (?P<limited>.*)"
)
_AMOUNTS = re.compile(r"([a-z0-9./-]+)=([0-9.]+[a-zA-Z]*)")
#: Kinds of refusals by their words, with what to do; the first that matches counts.
_ADVICE = (
    (
        re.compile(r"must specify"),
        "The quota counts what the pods do not state: write requests and limits in compute.resources, which all pods "
        "of the run follow (pods that prepare rows have dataset.compute.resources, too), or have them set by a "
        "LimitRange in the namespace or by the chart value defaults.limitRequestRatio.",
    ),
    (
        re.compile(r"(maximum|minimum) .* usage per|max limit to request ratio|LimitRange"),
        "A LimitRange of the namespace forbids it: write compute.resources within its bounds "
        "(dataset.compute.resources for pods that prepare rows), or change it.",
    ),
    (
        re.compile(r"violates PodSecurity"),
        "The namespace's Pod Security level forbids it: change compute.template or compute.network, or the namespace's "
        "label pod-security.kubernetes.io/enforce.",
    ),
    (
        re.compile(r"security context constraint", re.IGNORECASE),
        "The SecurityContextConstraints of the namespace forbid it: ask its administrator for ones that allow it.",
    ),
    (
        re.compile(r"service ?account .*not found", re.IGNORECASE),
        "Create the ServiceAccount, or correct compute.template.serviceAccountName.",
    ),
    (
        re.compile(r"RuntimeClass .*not found"),
        "Create the RuntimeClass, or correct compute.template.runtimeClassName.",
    ),
    (
        re.compile(r"PriorityClass .*(not found|was found)", re.IGNORECASE),
        "Create the PriorityClass, or correct compute.template.priorityClassName.",
    ),
    (
        re.compile(r"denied|ValidatingAdmissionPolicy"),
        "An admission policy of the cluster forbids it: change the resource so that the policy allows it, or ask its "
        "administrator.",
    ),
)
_UNKNOWN_ADVICE = "Remove what forbids it."
_CALL_FAILED = re.compile(
    r"failed calling webhook|Internal error|timed? ?out|deadline exceeded|too many requests", re.I
)
_REFUSED = re.compile(r"forbidden|denied|is invalid|not found|violates", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PodRefusal:
    """A refusal of a Job's pods.

    Attributes:
        message: the API server's words without numbers that change from try to try, and what to do.
        category: category of the failure if nobody helps; None if time alone may help.
    """

    message: str
    category: FailureCategory | None


def explain_refusal(job_name: str, words: str) -> PodRefusal:
    """Explanation of a refusal.

    Args:
        words: message of the Job's FailedCreate event.
    """
    category, advice = _judge(words)
    told = steady_words(words).removeprefix("Error creating: ").rstrip(". ")
    return PodRefusal(f'The pods of Job "{job_name}" are refused: {told}. {advice}', category)


def retry_creation(job: Body, now: datetime) -> tuple[Action, ...]:
    """Actions that make the Job controller try again to create pods, once in a while."""
    text = (job["metadata"].get("annotations") or {}).get(RETRIED_ANNOTATION)
    try:
        last = datetime.fromisoformat(text) if text else None
        if last is not None and timedelta(0) <= now - last < RETRY_PERIOD:
            return ()
    except (ValueError, TypeError):
        pass  # people may write anything
    return (Patch.of(job, {"metadata": {"annotations": {RETRIED_ANNOTATION: now.isoformat()}}}),)


def _judge(words: str) -> tuple[FailureCategory | None, str]:
    """Category and advice."""
    if (quota := _QUOTA.search(words)) is not None:
        beyond = _beyond(quota["requested"], quota["limited"])
        if beyond:
            return FailureCategory.USER_ERROR, (
                f"The whole quota is less than what one pod asks for ({beyond}): ask for less, or raise the quota."
            )
        return None, "It starts when others free their part of the quota, or when the quota is raised."
    if _CALL_FAILED.search(words):
        return None, "It is tried again."
    for pattern, advice in _ADVICE:
        if pattern.search(words):
            return FailureCategory.USER_ERROR, advice
    if _REFUSED.search(words):
        return FailureCategory.USER_ERROR, _UNKNOWN_ADVICE
    return None, "It is tried again."


def _beyond(requested: str, limited: str) -> str:
    """Name of a resource of which one pod asks for more than the quota has at all; empty if there is none."""
    most = _amounts(limited)
    return next((name for name, amount in _amounts(requested).items() if amount > most.get(name, amount)), "")


def _amounts(text: str) -> dict[str, Decimal]:
    found = {}
    for name, quantity in _AMOUNTS.findall(text):
        try:
            found[name] = quantity_amount(quantity)
        except ValueError:
            continue
    return found
