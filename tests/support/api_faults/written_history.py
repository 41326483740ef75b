"""What an operator has written, and what it may not write: seen by a proxy, across all of its lives."""

import re
import threading
from collections import Counter, defaultdict
from typing import Any

from api_faults.fault_proxy import Read
from api_faults.faults import Request

from tunesmith.decide.serving.records.record import AliasRecord
from tunesmith.manifests.names import ALIAS_LABEL, ATTEMPT_LABEL, OWNER_UID_LABEL, STAGE_LABEL
from tunesmith.manifests.serving_config_maps import RECORD_KEY
from tunesmith_contract.agent import Version

Body = dict[str, Any]

_JOBS = re.compile(r"/apis/batch/v1/namespaces/[^/]+/jobs$")
_STATUS = re.compile(r"/apis/tunesmith.dev/v1alpha1/namespaces/[^/]+/[^/]+/[^/]+/status$")
_CONFIG_MAPS = re.compile(r"/api/v1/namespaces/[^/]+/configmaps(/[^/]+)?$")
ENDED = ("Succeeded", "Failed")


class WrittenHistory:
    """Looks at each write of an operator.

    Args:
        weights: the weights that a candidate may get, in their order.

    Attributes:
        violations: what should not have happened, in words.
        writes: number of writes by their method and kind.
        created_jobs: how often each Job was created, by its name.
    """

    def __init__(self, weights: tuple[int, ...] = ()) -> None:
        self.violations: list[str] = []
        self.writes: Counter[str] = Counter()
        self.created_jobs: Counter[str] = Counter()
        self._weights = weights
        self._lock = threading.Lock()
        self._statuses: dict[str, Body] = {}
        self._attempts: dict[tuple[str, str], int] = defaultdict(int)
        self._aliases: dict[tuple[str, str], AliasRecord] = {}
        self._alive: list[tuple[str, str, str]] = []

    def go_back(self) -> None:
        """The API server's data are those of a backup: what came later never was."""
        with self._lock:
            self.created_jobs.clear()
            self._statuses.clear()
            self._attempts.clear()
            self._aliases.clear()

    async def before(self, request: Request, read: Read) -> None:
        """Look at what there is before a Job is made: no other attempt of the stage may be alive."""
        if request.method == "POST" and _JOBS.match(request.path):
            jobs = (await read(request.path))["items"]
            pods = (await read(request.path.replace("/apis/batch/v1", "/api/v1").replace("/jobs", "/pods")))[
                "items"
            ]
            with self._lock:
                self._alive = [_labels(job) for job in jobs if not _has_ended(job)]
                self._alive += [_labels(pod) for pod in pods if _is_active(pod)]

    def after(self, request: Request, answer: Body) -> None:
        """Look at a write that was carried out."""
        kind, is_status = answer.get("kind", ""), bool(_STATUS.match(request.path))
        with self._lock:
            self.writes[f"{request.method} {kind}{'/status' if is_status else ''}"] += 1
            if request.method == "POST" and _JOBS.match(request.path):
                self._see_job(answer)
            elif is_status:
                self._see_status(answer)
            elif _CONFIG_MAPS.match(request.path) and ALIAS_LABEL in (answer["metadata"].get("labels") or {}):
                self._see_alias(answer)

    def _see_job(self, job: Body) -> None:
        owner, stage, attempt = _labels(job)
        name = job["metadata"]["name"]
        self.created_jobs[name] += 1
        if self.created_jobs[name] > 1:
            self._accuse(f"Job {name} was made {self.created_jobs[name]} times")
        if int(attempt) != self._attempts[owner, stage] + 1:
            self._accuse(f"Job {name} follows attempt {self._attempts[owner, stage]}")
        self._attempts[owner, stage] = int(attempt)
        for other in self._alive:
            if other[:2] == (owner, stage) and other[2] != attempt:
                self._accuse(f"Job {name} was made while attempt {other[2]} was alive")

    def _see_status(self, body: Body) -> None:
        metadata, status = body["metadata"], body["status"]
        before = self._statuses.get(metadata["uid"], {})
        self._statuses[metadata["uid"]] = status
        name = f"{body['kind']} {metadata['name']}"
        if status.get("observedGeneration", 0) > metadata["generation"]:
            self._accuse(f"{name} was observed in generation {status['observedGeneration']} of the future")
        if status.get("observedGeneration", 0) < before.get("observedGeneration", 0):
            self._accuse(f"{name}: the observed generation went back")
        if (
            before.get("phase") in ENDED
            and status.get("phase") != before["phase"]
            and body["kind"] != "AdapterDeployment"
        ):
            self._accuse(f"{name} was {before['phase']}, and is {status.get('phase')}")
        for kept in ("artifact", "verdict", "evalRun", "dataset"):
            if kept in before and status.get(kept) != before[kept]:
                self._accuse(f"{name} lost its {kept} {before[kept]}: {status.get(kept)}")
        for counted in ("attempts", "disruptions"):
            if status.get(counted, 0) < before.get(counted, 0):
                self._accuse(f"{name}: {counted} went from {before[counted]} to {status.get(counted)}")

    def _see_alias(self, config_map: Body) -> None:
        labels = config_map["metadata"]["labels"]
        key, name = (labels[OWNER_UID_LABEL], labels[ALIAS_LABEL]), labels[ALIAS_LABEL]
        record = AliasRecord.read(config_map["data"][RECORD_KEY])
        before = self._aliases.get(key, AliasRecord(name=record.name))
        self._aliases[key] = record
        (weight, digest), (weight_before, digest_before) = _candidate(record), _candidate(before)
        allowed = (0, *self._weights)
        if weight not in allowed:
            self._accuse(f"alias {name}: weight {weight}")
        elif digest and digest == digest_before and weight < weight_before:
            self._accuse(f"alias {name}: the weight of {digest} fell from {weight_before} to {weight}")
        elif weight and allowed.index(weight) > allowed.index(weight_before) + 1:
            self._accuse(f"alias {name}: the weight of {digest} rose from {weight_before} to {weight}")
        stable, stable_before = _digest(record.stable), _digest(before.stable)
        if stable_before not in ("", stable) and (stable != digest_before or not weight_before):
            self._accuse(
                f"alias {name}: {stable} became stable in place of {stable_before} without a rollout"
            )
        if record.generation < before.generation:
            self._accuse(f"alias {name}: its generation fell from {before.generation} to {record.generation}")

    def _accuse(self, words: str) -> None:
        self.violations.append(words)


def _labels(body: Body) -> tuple[str, str, str]:
    """UID of the owner, stage and attempt."""
    labels = body["metadata"].get("labels") or {}
    return labels.get(OWNER_UID_LABEL, ""), labels.get(STAGE_LABEL, ""), labels.get(ATTEMPT_LABEL, "")


def _has_ended(job: Body) -> bool:
    conditions = job.get("status", {}).get("conditions") or ()
    return any(item["type"] in ("Complete", "Failed") and item["status"] == "True" for item in conditions)


def _is_active(pod: Body) -> bool:
    return pod.get("status", {}).get("phase") in ("Pending", "Running")


def _candidate(record: AliasRecord) -> tuple[int, str]:
    candidate = record.candidate
    return (candidate.weight, candidate.version.digest) if candidate else (0, "")


def _digest(version: Version | None) -> str:
    return version.digest if version else ""
