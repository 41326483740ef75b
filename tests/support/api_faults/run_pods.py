"""A kubelet for the pods of runs: each ends as a seeded plan says, whatever happens to the operator meanwhile."""

import contextlib
import random
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from simulation.simulated_cluster import success
from simulation.training_world import preempted

from tunesmith.manifests.names import ATTEMPT_LABEL, OWNER_NAME_LABEL, STAGE_LABEL
from tunesmith_cluster.api import ApiError
from tunesmith_cluster.fake import ControlPlane
from tunesmith_contract.exit_codes import ExitCode
from tunesmith_contract.report import RunReport

LOOK_SECONDS = 0.25
#: Stages that runs have; other pods are left alone.
STAGES = ("prepare", "train", "evaluate")


@dataclass(frozen=True, slots=True)
class End:
    """The end of a pod.

    Attributes:
        seconds: how long it runs.
    """

    exit_code: int
    report: RunReport | None
    seconds: float


def plan_end(seed: int, owner: str, stage: str, attempt: int) -> End:
    """The end of this attempt's pod, the same however often it is asked for.

    A fifth of the first attempts are disrupted or lost to their machine. A fifth of all jobs fail for good in training.
    """
    draw = random.Random(f"{seed}/{owner}/{stage}/{attempt}")
    seconds, chance = draw.uniform(0.0, 0.8), draw.random()
    if stage == "train" and fails_for_good(seed, owner):
        return End(ExitCode.USER_ERROR, None, seconds)
    if attempt == 1 and chance < 0.1:
        return End(ExitCode.INFRASTRUCTURE, None, seconds)
    if attempt == 1 and chance < 0.2:
        return End(ExitCode.PREEMPTED, preempted(40) if stage == "train" else None, seconds)
    return End(0, success(stage), seconds)


def fails_for_good(seed: int, owner: str) -> bool:
    """Whether the training of this job is a user's error."""
    return owner.startswith("job") and random.Random(f"{seed}/{owner}").random() < 0.2


def attempts_of(seed: int, owner: str, stages: tuple[str, ...]) -> list[str]:
    """The attempts that a run has, in their order, as its Jobs' names end."""
    found = []
    for stage in stages:
        for attempt in range(1, 4):
            found.append(f"{stage}-{attempt}")
            end = plan_end(seed, owner, stage, attempt)
            if end.exit_code == ExitCode.USER_ERROR:
                return found
            if end.exit_code == 0:
                break
    return found


class RunPods:
    """Ends the pods of a namespace, in a thread; it goes on while the API server is away.

    Attributes:
        ended: names of the pods that were ended, by owner, stage and attempt.
    """

    def __init__(self, server: ControlPlane, namespace: str, seed: int) -> None:
        self._server, self._namespace, self._seed = server, namespace, seed
        self._running_since: dict[str, float] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="run pods", daemon=True)
        self.ended: dict[tuple[str, str, int], set[str]] = defaultdict(set)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            with contextlib.suppress(ApiError, ConnectionError, TimeoutError):
                self._look()

    def _look(self) -> None:
        path = f"/api/v1/namespaces/{self._namespace}/pods"
        selector = "status.phase%3DRunning"
        for pod in self._server.api.get(f"{path}?fieldSelector={selector}")["items"]:
            labels = pod["metadata"].get("labels") or {}
            if labels.get(STAGE_LABEL) not in STAGES or "deletionTimestamp" in pod["metadata"]:
                continue
            began = self._running_since.setdefault(pod["metadata"]["uid"], time.monotonic())
            owner, stage, attempt = labels[OWNER_NAME_LABEL], labels[STAGE_LABEL], int(labels[ATTEMPT_LABEL])
            end = plan_end(self._seed, owner, stage, attempt)
            if time.monotonic() - began >= end.seconds:
                self._finish(pod, end)
                self.ended[owner, stage, attempt].add(pod["metadata"]["name"])

    def _finish(self, pod: dict[str, Any], end: End) -> None:
        message = end.report.to_termination_message().decode() if end.report else ""
        self._server.finish_pod(self._namespace, pod["metadata"]["name"], end.exit_code, message)
