"""Versions of an alias that are released one after another, each good or bad, whatever happens to the operator."""

import random
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agents.scripted_agent import ScriptedAgent
from control_plane.restartable_operator import RestartableOperator
from control_plane.served_adapters import KIND, ROLLOUT, Serving
from simulation.serving_world import build_adapter, digest_of

from tunesmith_cluster.api import ApiError
from tunesmith_cluster.fake import ControlPlane

WEIGHTS = (50, 100)
ALIAS = "expenses"
LOOK_SECONDS = 0.2


class Rollouts:
    """An AdapterDeployment with one pod and a scripted agent; a thread releases versions until it is stopped.

    Args:
        most: number of versions after which no more is released.

    Attributes:
        outcomes: by its word, whether each released version is stable (True) or was rolled back.
    """

    def __init__(
        self, server: ControlPlane, folder: Path, operator: RestartableOperator, seed: int, most: int
    ) -> None:
        self._serving = Serving(server, folder, operator)
        self._random, self._most = random.Random(seed), most
        self._stopped, self._abandoned = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="rollouts", daemon=True)
        self._agent: ScriptedAgent | None = None
        self.namespace = self._serving.namespace
        self.wanted: dict[str, bool] = {}
        self.outcomes: dict[str, bool] = {}

    def __enter__(self) -> Self:
        self._serving.apply(build_adapter("first"))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandoned.set()
        self._thread.join(30)

    def stop(self, seconds: float) -> None:
        """Release no more, and wait for the end of the last one.

        Raises:
            TimeoutError: it did not end in time; holds the status.
        """
        self._stopped.set()
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise TimeoutError(
                f"no end of {self.wanted.keys() - self.outcomes.keys()}: {self._serving.status}"
            )

    def is_settled(self) -> bool:
        """Whether the resource says of its last generation that nothing of the alias is under way."""
        body = self._serving.server.get(KIND, "ad", self.namespace)
        generation, status = body["metadata"]["generation"], body["status"]
        observed = {each["observedGeneration"] for each in status["conditions"]}
        return observed == {generation} and status["adapters"][0]["phase"] in ("Stable", "RolledBack")

    def _run(self) -> None:
        # The pod comes once the operator has made the Deployment.
        while not self._serving.pod_names():
            if self._abandoned.wait(LOOK_SECONDS):
                return
        with self._serving.agent() as agent:
            self._release("first", True, agent)
            for number in range(1, self._most + 1):
                if self._stopped.is_set():
                    return
                self._release(f"version-{number}", self._random.random() < 0.7, agent)

    def _release(self, word: str, is_good: bool, agent: ScriptedAgent) -> None:
        digest = digest_of(word)
        self.wanted[word] = is_good
        self._patch({"spec": {"adapters": [build_adapter(word, rollout=ROLLOUT)]}})
        requests = 0
        while not self._abandoned.wait(LOOK_SECONDS):
            requests += 10
            agent.counters[ALIAS, digest] = (requests, 0 if is_good else requests // 2)
            adapter = self._read()
            if adapter.get("stable", {}).get("digest") == digest:
                self.outcomes[word] = True
                return
            if digest in {each["digest"] for each in adapter.get("rejected", ())}:
                self.outcomes[word] = False
                return

    def _read(self) -> dict[str, Any]:
        try:
            return self._serving.adapter()
        except (ApiError, ConnectionError):
            return {}

    def _patch(self, change: dict[str, Any]) -> None:
        path = f"/apis/tunesmith.dev/v1alpha1/namespaces/{self.namespace}/adapterdeployments/ad"
        while not self._abandoned.is_set():
            try:
                self._serving.server.api.merge(path, change)
            except ConnectionError:
                time.sleep(LOOK_SECONDS)
            else:
                return
