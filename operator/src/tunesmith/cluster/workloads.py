"""Kueue's Workloads of Jobs that a queue holds, read only now and then: thousands of jobs may wait for months."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tunesmith.controller_runtime.client import Client
from tunesmith.decide.run.suspension import WORKLOAD_CONDITIONS, is_held
from tunesmith.manifests.names import Metadata
from tunesmith.manifests.objects import Body

from .cluster_reads import KUEUE

WORKLOAD_JOB_LABEL = f"{KUEUE}/job-uid"
FRESH = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read for these Jobs and this wish, with only what plans look at."""

    job_uids: frozenset[str]
    suspend: bool
    workloads: tuple[Body, ...]
    at: datetime


class Workloads:
    """The latest Workloads of each resource that waits."""

    def __init__(self) -> None:
        self._reads: dict[str, _Read] = {}

    async def observe(
        self,
        client: Client,
        version: str,
        owner: Metadata,
        job_uids: Iterable[str],
        suspend: bool,
        now: datetime,
    ) -> tuple[Body, ...]:
        """The Workloads of these Jobs, at most 30 seconds old; as they are where the plan has to change them.

        Args:
            version: ``group/version`` of Workloads.
            suspend: whether the resource is to be held.

        Raises:
            ApiError: they can't be listed.
        """
        uids, known = frozenset(job_uids), self._reads.get(owner.uid)
        if (
            known is not None
            and (known.job_uids, known.suspend) == (uids, suspend)
            and now < known.at + FRESH
        ):
            return known.workloads
        lists = [
            await client.list(version, "Workload", owner.namespace, f"{WORKLOAD_JOB_LABEL}={uid}")
            for uid in sorted(uids)
        ]
        workloads = tuple(_stripped(workload) for found in lists for workload in found)
        self.forget(owner.uid)
        if _is_settled(workloads, suspend):
            self._reads[owner.uid] = _Read(uids, suspend, workloads, now)
        return workloads

    def forget(self, owner_uid: str) -> None:
        """Drop the Workloads of a resource that waits no more."""
        self._reads.pop(owner_uid, None)


def _is_settled(workloads: tuple[Body, ...], suspend: bool) -> bool:
    """True where the operator has nothing to change: it holds what is to be held, and nothing else."""
    return all(is_held(workload) == suspend for workload in workloads) and (bool(workloads) or not suspend)


def _stripped(workload: Body) -> Body:
    metadata: dict[str, Any] = workload["metadata"]
    kept = ("name", "namespace", "uid", "annotations", "ownerReferences")
    conditions = (workload.get("status") or {}).get("conditions") or ()
    return {
        "apiVersion": workload["apiVersion"],
        "kind": workload["kind"],
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": {key: value for key, value in workload["spec"].items() if key == "active"},
        "status": {"conditions": [each for each in conditions if each["type"] in WORKLOAD_CONDITIONS]},
    }
