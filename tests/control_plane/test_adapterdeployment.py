"""An AdapterDeployment on a real API server: real pods' tokens, the operator as a process, agents by script."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from restartable_operator import RestartableOperator
from scripted_agent import ScriptedAgent
from serving_world import build_adapter, digest_of

from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane
from tunesmith_contract.layout import TOKEN_AUDIENCE

CRDS = Path(__file__).parents[2] / "crds"
KIND = "adapterdeployments.tunesmith.dev"
ROLLOUT = {
    "steps": [{"weight": 50, "pause": "3s"}, {"weight": 100}],
    "analysis": {"interval": "1s", "minimumRequests": 10},
}


class Serving:
    """One AdapterDeployment named ``ad`` in a namespace of its own, with its operator and its only pod's agent."""

    def __init__(self, server: ControlPlane, folder: Path, stack: ExitStack) -> None:
        self.server = server
        self.namespace = server.namespace("serving")
        for claim in ("artifacts", "models"):
            server.add_volume(self.namespace, claim, folder, "gpu-0")
        self.operator = stack.enter_context(RestartableOperator(server, folder, self.namespace))
        self.apply("one")
        self.agent = stack.enter_context(self._agent())

    def apply(self, word: str) -> None:
        """Apply the resource with the artefact of this word."""
        adapter = build_adapter(word, rollout=ROLLOUT)
        spec = {
            "baseModel": {"uri": "pvc://models/base"},
            "engine": {"gpus": 1},
            "artifactVolumes": [{"claim": "artifacts"}],
            "adapters": [adapter],
        }
        body = {
            "apiVersion": "tunesmith.dev/v1alpha1",
            "kind": "AdapterDeployment",
            "metadata": {"name": "ad"},
        }
        self.server.apply(body | {"spec": spec}, self.namespace)

    @property
    def status(self) -> dict[str, Any]:
        """The status as it stands now."""
        status: dict[str, Any] = self.server.get(KIND, "ad", self.namespace).get("status", {})
        return status

    def adapter(self) -> dict[str, Any]:
        """The status of the only stable name."""
        return next(iter(self.status.get("adapters", ())), {})

    def wait(self, phase: str, word: str, timeout: float = 30) -> dict[str, Any]:
        """The adapter's status once it is in this phase with this artefact stable."""

        def reached() -> dict[str, Any] | None:
            adapter = self.adapter()
            stable = adapter.get("stable", {}).get("digest")
            return adapter if (adapter.get("phase"), stable) == (phase, digest_of(word)) else None

        return eventually(reached, timeout, what=f"phase {phase} with {word} stable: {self.adapter()}")

    def answer(self, word: str, requests: int, errors: int = 0) -> None:
        """From now on the agent reports these counters."""
        self.agent.counters["expenses", digest_of(word)] = (requests, errors)

    def pod_uids(self) -> set[str]:
        """The pods there are."""
        pods = self.server.api.get(f"/api/v1/namespaces/{self.namespace}/pods")["items"]
        return {pod["metadata"]["uid"] for pod in pods}

    def wipe_status(self) -> None:
        """As if it had never been written."""
        path = f"/apis/tunesmith.dev/v1alpha1/namespaces/{self.namespace}/adapterdeployments/ad/status"
        self.server.api.merge(path, {"status": None})

    def _agent(self) -> ScriptedAgent:
        pod = self.server.wait_for_pod(self.namespace, "tunesmith.dev/stage=serving", timeout=60)
        metadata = pod["metadata"]
        token = self.server.kubectl(
            "create",
            "token",
            "default",
            f"--namespace={self.namespace}",
            f"--audience={TOKEN_AUDIENCE}",
            "--bound-object-kind=Pod",
            f"--bound-object-name={metadata['name']}",
            f"--bound-object-uid={metadata['uid']}",
        )
        maps = self.server.api.get(f"/api/v1/namespaces/{self.namespace}/configmaps")["items"]
        authority = next(found["data"]["ca.crt"] for found in maps if "desired.json" in found["data"])
        return ScriptedAgent(
            f"https://127.0.0.1:{self.operator.tls_port}",
            self.operator.host_name,
            authority,
            token.strip(),
            self.namespace,
            "ad",
            (metadata["name"], metadata["uid"]),
        )


@pytest.fixture
def serving(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Serving]:
    """Version 1 is stable."""
    control_plane.kubectl("apply", "--server-side", "-f", str(CRDS))
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{KIND}")
    with ExitStack() as stack:
        serving = Serving(control_plane, tmp_path, stack)
        serving.wait("Stable", "one", timeout=60)
        yield serving


def test_a_version_goes_up_step_by_step_and_a_bad_one_comes_back(serving: Serving) -> None:
    conditions = {each["type"]: each["status"] for each in serving.status["conditions"]}
    assert conditions["Ready"] == conditions["Available"] == "True"
    assert serving.status["url"] == f"http://ad.{serving.namespace}.svc"
    assert serving.server.get("service", "ad", serving.namespace)["spec"]["ports"][0]["port"] == 80

    serving.apply("two")
    candidate = serving.wait("Progressing", "one")["candidate"]
    assert (candidate["version"], candidate["weight"], candidate["loadedOn"]) == (2, 50, 1)
    serving.answer("two", 20)
    assert serving.wait("Stable", "two")["stable"]["version"] == 2

    serving.apply("three")
    serving.wait("Progressing", "two")
    serving.answer("three", 20, errors=15)
    adapter = serving.wait("RolledBack", "two")
    assert [(each["digest"], each["reason"]) for each in adapter["rejected"]] == [
        (digest_of("three"), "ErrorRateTooHigh")
    ]
    eventually(lambda: serving.agent.desired.aliases[0].candidate is None, what="the pod to be told")
    serving.apply("two")
    serving.wait("Stable", "two")
    serving.apply("three")
    assert serving.wait("RolledBack", "two").get("candidate") is None

    told = serving.server.api.get(f"/api/v1/namespaces/{serving.namespace}/events")["items"]
    reasons = {event["reason"] for event in told}
    assert {"Loading", "StepStarted", "Promoted", "RolledBack"} <= reasons


def test_killed_upgraded_and_with_status_wiped_it_goes_on_from_the_records_with_the_same_pods(
    serving: Serving,
) -> None:
    serving.apply("two")
    before = serving.wait("Progressing", "one")["candidate"]
    pods = serving.pod_uids()
    serving.operator.kill()
    serving.wipe_status()
    serving.operator.start("--serving-image=registry/newer:2")
    after = serving.wait("Progressing", "one")["candidate"]
    for part in ("version", "digest", "weight", "step", "stepStartTime"):
        assert after[part] == before[part]
    serving.answer("two", 20)
    adapter = serving.wait("Stable", "two")
    assert [past["version"] for past in adapter["history"]] == [2, 1]
    assert serving.pod_uids() == pods
