"""Verdicts on an artifact, in one ConfigMap that belongs to no EvalRun and so stays when one is deleted.

Each EvalRun writes a key of its own, its UID. Several that end at once don't disturb each other.
"""

import re
from collections.abc import Iterable
from datetime import datetime

from pydantic import Field

from tunesmith_contract.base import Report
from tunesmith_contract.shared_rules.verdict import Verdict

from .names import MANAGED_BY_LABEL, OWNER_UID_LABEL
from .objects import Body, KubernetesObject

#: Value of the owner's label, by which these ConfigMaps are found and watched as children of resources are.
VERDICTS_OWNER = "verdicts"
ARTIFACT_KEY = "artifact"
#: Verdicts of one policy on one artifact that are kept: the newest ones, and the newest that is no Pass.
KEPT_OF_EACH_POLICY = 16

_DIGEST = re.compile("sha256:[0-9a-f]{64}")


class VerdictRecord(Report):
    """Verdict of an EvalRun on an artifact.

    Attributes:
        uid, name: those of the EvalRun.
        run: its number among the runs of this artifact and policy, from 1.
    """

    uid: str
    name: str
    policy_digest: str
    verdict: Verdict
    ended_at: datetime
    run: int = Field(1, ge=1)


def has_verdicts(digest: str) -> bool:
    """True for the digest of an artifact; revisions of models are served by no alias."""
    return _DIGEST.fullmatch(digest) is not None


def verdicts_name(digest: str) -> str:
    """``verdicts-<40 hex digits of the artifact's digest>``."""
    return f"verdicts-{digest.removeprefix('sha256:')[:40]}"


def verdicts_group(namespace: str, name: str) -> str:
    """What stands for an owner's UID where the ConfigMap of this name is kept among the children of resources."""
    return f"{VERDICTS_OWNER}/{namespace}/{name}"


def build_verdicts(namespace: str, digest: str, record: VerdictRecord) -> KubernetesObject:
    """The ConfigMap of an artifact with its first verdict."""
    labels = {MANAGED_BY_LABEL: "tunesmith", OWNER_UID_LABEL: VERDICTS_OWNER}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": verdicts_name(digest), "namespace": namespace, "labels": labels},
        "data": {ARTIFACT_KEY: digest, record.uid: record.to_json()},
    }


def read_verdicts(config_maps: Iterable[Body], digest: str) -> tuple[VerdictRecord, ...]:
    """Verdicts on an artifact, the oldest first."""
    return read_all_verdicts(config_maps).get(digest, ())


def read_all_verdicts(config_maps: Iterable[Body]) -> dict[str, tuple[VerdictRecord, ...]]:
    """Verdicts by the digest of the artifact, the oldest first. Keys that people added are left out."""
    found: dict[str, list[VerdictRecord]] = {}
    for body in config_maps:
        data = body.get("data") or {}
        records = filter(None, (_read(key, text) for key, text in data.items()))
        found.setdefault(data.get(ARTIFACT_KEY, ""), []).extend(records)
    return {digest: tuple(sorted(records, key=_place)) for digest, records in found.items()}


def number_of(record: VerdictRecord, known: Iterable[VerdictRecord]) -> int:
    """Number of a run among those of its policy, also where the first ones are no longer kept."""
    earlier = [
        other.run
        for other in known
        if other.policy_digest == record.policy_digest and _place(other) < _place(record)
    ]
    return 1 + max(len(earlier), max(earlier, default=0))


def superseded(verdicts: Iterable[VerdictRecord]) -> frozenset[str]:
    """UIDs of the verdicts on an artifact that are no longer kept."""
    dropped = set()
    by_policy: dict[str, list[VerdictRecord]] = {}
    for record in sorted(verdicts, key=_place):
        by_policy.setdefault(record.policy_digest, []).append(record)
    for records in by_policy.values():
        not_passed = [record.uid for record in records if record.verdict is not Verdict.PASS]
        old = {record.uid for record in records[:-KEPT_OF_EACH_POLICY]}
        dropped |= old - set(not_passed[-1:])
    return frozenset(dropped)


def _place(record: VerdictRecord) -> tuple[datetime, str]:
    return record.ended_at, record.uid


def _read(key: str, text: str) -> VerdictRecord | None:
    if key == ARTIFACT_KEY:
        return None
    try:
        return VerdictRecord.model_validate_json(text)
    except ValueError:
        return None
