"""ControllerRevision of one version of an alias.

Its data never changes: which bytes were admitted, by whose verdict, and when. What happens to the version later,
promotion and rejection, is an annotation, since the API server lets nobody change the data of a ControllerRevision.
"""

import json
from collections.abc import Mapping
from datetime import datetime

from tunesmith_contract.agent import Version

from .names import ALIAS_LABEL, GROUP, Component, Owner, child_metadata
from .objects import Body, KubernetesObject

PROMOTED_ANNOTATION = f"{GROUP}/promoted"
BASE_MODEL_ANNOTATION = f"{GROUP}/base-model"
REJECTED_ANNOTATION = f"{GROUP}/rejected"
API_VERSION, KIND = "apps/v1", "ControllerRevision"


def version_revision_name(owner: Owner, alias: str, version: int) -> str:
    """The name of the object: one per number, so that no number is given twice."""
    return f"{child_metadata(owner, Component.VERSION)['name']}-{alias}-{version}"


def build_version_revision(
    owner: Owner,
    alias: str,
    version: Version,
    evaluated: str,
    eval_run: str,
    policy_digest: str,
    now: datetime,
) -> KubernetesObject:
    """A version, admitted now.

    Args:
        evaluated: the verdict of an EvalRun, or ``Unevaluated``.
        eval_run: its name; empty if none was asked for.
        policy_digest: digest of the evaluation policy of its verdict; empty if none was required.
    """
    metadata = child_metadata(owner, Component.VERSION)
    metadata["name"] = version_revision_name(owner, alias, version.version)
    metadata["labels"][ALIAS_LABEL] = alias
    data = {
        "alias": alias,
        **version.to_dict(),
        "evaluated": evaluated,
        "evalRun": eval_run,
        "policyDigest": policy_digest,
        "admitted": now.isoformat(),
    }
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": metadata,
        "revision": version.version,
        "data": data,
    }


def promotion_patch(time: datetime, base_model: str) -> KubernetesObject:
    """Patch that marks the version as promoted.

    Args:
        base_model: URI of the base model that it answers on; empty: unknown.
    """
    annotations = {PROMOTED_ANNOTATION: time.isoformat(), BASE_MODEL_ANNOTATION: base_model or None}
    return {"metadata": {"annotations": annotations}}


def rejection_patch(time: datetime, reason: str, message: str) -> KubernetesObject:
    """Patch that marks the version as rejected."""
    rejection = json.dumps({"reason": reason, "message": message, "time": time.isoformat()})
    return {"metadata": {"annotations": {REJECTED_ANNOTATION: rejection}}}


def lift_patch() -> KubernetesObject:
    """Patch by which the version is not rejected any more."""
    return {"metadata": {"annotations": {REJECTED_ANNOTATION: None}}}


def read_promotion(revision: Body) -> datetime | None:
    """Time at which the version was last promoted; None if it never was."""
    written = revision["metadata"].get("annotations", {}).get(PROMOTED_ANNOTATION)
    return read_time(written) if written else None


def read_base_model(revision: Body) -> str:
    """URI of the base model that the version answered on last; empty if that is unknown."""
    return str(revision["metadata"].get("annotations", {}).get(BASE_MODEL_ANNOTATION) or "")


def read_time(text: str) -> datetime:
    """A time in an annotation.

    Raises:
        ValueError: it is none, or lacks its zone and can't be compared with others.
    """
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return time


def read_rejection(revision: Body) -> Mapping[str, str] | None:
    """``reason``, ``message`` and ``time`` of a rejected version; None if it is not."""
    written = revision["metadata"].get("annotations", {}).get(REJECTED_ANNOTATION)
    if not written:
        return None
    rejection: Mapping[str, str] = json.loads(written)
    return rejection
