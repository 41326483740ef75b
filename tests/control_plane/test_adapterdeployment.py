"""An AdapterDeployment on a real API server: the operator as a process, agents with the tokens of their pods.

Most agents follow a script; one test has the real agent in front of a fake engine.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from agents.agent_harness import Storage, running_agent
from agents.fake_engine import FakeEngine
from agents.scripted_agent import ScriptedAgent
from control_plane.restartable_operator import RestartableOperator
from control_plane.served_jobs import install_crds
from simulation.serving_world import build_adapter, digest_of

from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane
from tunesmith_contract.layout import CA_FILE, TOKEN_AUDIENCE, TOKEN_FILE

KIND = "adapterdeployments.tunesmith.dev"
ROLLOUT = {
    "steps": [{"weight": 50, "pause": "3s"}, {"weight": 100}],
    "analysis": {"interval": "1s", "minimumRequests": 10},
}


class Serving:
    """One AdapterDeployment named ``ad`` in a namespace of its own, with its operator; it has one pod."""

    def __init__(self, server: ControlPlane, folder: Path, stack: ExitStack) -> None:
        self.server = server
        self.namespace = server.namespace("serving")
        for claim in ("artifacts", "models"):
            server.add_volume(self.namespace, claim, folder, "gpu-0")
        self.operator = stack.enter_context(RestartableOperator(server, folder, self.namespace))

    def apply(self, adapter: dict[str, Any]) -> None:
        """Apply the resource with this adapter."""
        spec = {
            "baseModel": {"uri": "pvc://models/base"},
            "engine": {"gpus": 1},
            "artifactVolumes": [{"claim": "artifacts"}],
            "adapters": [adapter | {"rollout": ROLLOUT}],
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

    def act(self, verb: str, **fields: str) -> None:
        """Annotate the resource with this action, as a person does."""
        action = json.dumps({"id": f"id-{verb}", "adapter": "expenses", "verb": verb, **fields})
        scope = [f"--namespace={self.namespace}", "--overwrite"]
        self.server.kubectl("annotate", *scope, "adapterdeployment", "ad", f"tunesmith.dev/action={action}")

    def adapter(self) -> dict[str, Any]:
        """The status of the only alias."""
        return next(iter(self.status.get("adapters", ())), {})

    def wait(self, phase: str, digest: str, timeout: float = 30) -> dict[str, Any]:
        """The adapter's status once it is in this phase with this artifact stable."""

        def reached() -> dict[str, Any] | None:
            adapter = self.adapter()
            stable = adapter.get("stable", {}).get("digest")
            return adapter if (adapter.get("phase"), stable) == (phase, digest) else None

        try:
            return eventually(reached, timeout, what=f"phase {phase} with {digest} stable")
        except TimeoutError as error:
            error.add_note(json.dumps(self.status))
            raise

    def pod_uids(self) -> set[str]:
        """The pods there are."""
        pods = self.server.api.get(f"/api/v1/namespaces/{self.namespace}/pods")["items"]
        return {pod["metadata"]["uid"] for pod in pods}

    def wipe_status(self) -> None:
        """As if it had never been written."""
        path = f"/apis/tunesmith.dev/v1alpha1/namespaces/{self.namespace}/adapterdeployments/ad/status"
        self.server.api.merge(path, {"status": None})

    def pod(self) -> tuple[str, str]:
        """Name and UID of the pod."""
        pod = self.server.wait_for_pod(self.namespace, "tunesmith.dev/stage=serving", timeout=60)
        return pod["metadata"]["name"], pod["metadata"]["uid"]

    def token(self) -> str:
        """What kubelet would project into the pod."""
        name, uid = self.pod()
        bound = ["--bound-object-kind=Pod", f"--bound-object-name={name}", f"--bound-object-uid={uid}"]
        scope = [f"--namespace={self.namespace}", f"--audience={TOKEN_AUDIENCE}"]
        return self.server.kubectl("create", "token", "default", *scope, *bound).strip()

    def authority(self) -> str:
        """The operator's authority, as the pod gets it."""
        maps = self.server.api.get(f"/api/v1/namespaces/{self.namespace}/configmaps")["items"]
        authority: str = next(found["data"]["ca.crt"] for found in maps if "desired.json" in found["data"])
        return authority


@pytest.fixture
def serving(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Serving]:
    """An operator, and what is needed to serve."""
    install_crds(control_plane)
    with ExitStack() as stack:
        yield Serving(control_plane, tmp_path, stack)


@pytest.fixture
def agent(serving: Serving) -> Iterator[ScriptedAgent]:
    """Version 1 is stable, and held by an agent that follows a script."""
    serving.apply(build_adapter("one"))
    pod = serving.pod()
    url = f"https://127.0.0.1:{serving.operator.tls_port}"
    host_name = serving.operator.host_name
    authority, token = serving.authority(), serving.token()
    with ScriptedAgent(url, host_name, authority, token, serving.namespace, "ad", pod) as agent:
        serving.wait("Stable", digest_of("one"), timeout=60)
        yield agent


def test_a_version_goes_up_step_by_step_and_a_bad_one_comes_back(
    serving: Serving, agent: ScriptedAgent
) -> None:
    conditions = {each["type"]: each["status"] for each in serving.status["conditions"]}
    assert conditions["Ready"] == conditions["Available"] == "True"
    assert serving.status["url"] == f"http://ad.{serving.namespace}.svc"
    assert serving.server.get("service", "ad", serving.namespace)["spec"]["ports"][0]["port"] == 80

    serving.apply(build_adapter("two"))
    candidate = serving.wait("Progressing", digest_of("one"))["candidate"]
    assert (candidate["version"], candidate["weight"], candidate["loadedOn"]) == (2, 50, 1)
    agent.counters["expenses", digest_of("two")] = (20, 0)
    assert serving.wait("Stable", digest_of("two"))["stable"]["version"] == 2

    serving.apply(build_adapter("three"))
    serving.wait("Progressing", digest_of("two"))
    agent.counters["expenses", digest_of("three")] = (20, 15)
    adapter = serving.wait("RolledBack", digest_of("two"))
    assert [(each["digest"], each["reason"]) for each in adapter["rejected"]] == [
        (digest_of("three"), "ErrorRateTooHigh")
    ]
    eventually(lambda: agent.desired.aliases[0].candidate is None, what="the pod to be told")
    serving.apply(build_adapter("two"))
    serving.wait("Stable", digest_of("two"))
    serving.apply(build_adapter("three"))
    assert serving.wait("RolledBack", digest_of("two")).get("candidate") is None

    told = serving.server.api.get(f"/api/v1/namespaces/{serving.namespace}/events")["items"]
    reasons = {event["reason"] for event in told}
    assert {"Loading", "StepStarted", "Promoted", "RolledBack"} <= reasons


def test_killed_upgraded_and_with_status_wiped_it_goes_on_from_the_records_with_the_same_pods(
    serving: Serving, agent: ScriptedAgent
) -> None:
    serving.apply(build_adapter("two"))
    before = serving.wait("Progressing", digest_of("one"))["candidate"]
    pods = serving.pod_uids()
    serving.operator.kill()
    serving.wipe_status()
    serving.operator.start("--serving-gpu-image=registry/newer:2")
    after = serving.wait("Progressing", digest_of("one"))["candidate"]
    for part in ("version", "digest", "weight", "step", "stepStartTime"):
        assert after[part] == before[part]
    agent.counters["expenses", digest_of("two")] = (20, 0)
    adapter = serving.wait("Stable", digest_of("two"))
    assert [past["version"] for past in adapter["history"]] == [2, 1]
    assert serving.pod_uids() == pods


def test_people_act_by_an_annotation(serving: Serving, agent: ScriptedAgent) -> None:
    serving.apply(build_adapter("two"))
    serving.wait("Progressing", digest_of("one"))
    serving.act("pause", by="ada", reason="lunch")
    serving.wait("Paused", digest_of("one"))
    serving.act("abort")
    assert serving.wait("RolledBack", digest_of("one"))["rejected"][0]["reason"] == "Aborted"
    eventually(lambda: agent.desired.aliases[0].rejected == (digest_of("two"),), what="the pod to be told")
    serving.act("retry", digest=digest_of("two"))
    serving.wait("Paused", digest_of("one"))
    serving.act("promote")
    serving.wait("Stable", digest_of("two"))
    serving.act("undo")
    actions = serving.wait("RolledBack", digest_of("one"))["actions"]
    assert [action["verb"] for action in actions] == ["undo", "promote", "retry", "abort", "pause"]
    assert {(action["manager"], action["result"]) for action in actions} == {("kubectl-annotate", "Done")}
    assert (actions[-1]["by"], actions[-1]["reason"]) == ("ada", "lunch")
    told = serving.server.api.get(f"/api/v1/namespaces/{serving.namespace}/events")["items"]
    assert "ActionDone" in {event["reason"] for event in told}


@pytest.fixture
def cluster_dns(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator's Service leads to its process."""
    resolve = socket.getaddrinfo

    def find(host: Any, *arguments: Any, **named: Any) -> Any:
        return resolve("127.0.0.1" if host == serving.operator.host_name else host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", find)


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    """What the agent finds on loopback."""
    engine = FakeEngine()
    await engine.start()
    yield engine
    await engine.stop()


@pytest.mark.usefixtures("cluster_dns")
async def test_the_real_agent_proves_what_it_serves(
    serving: Serving, engine: FakeEngine, tmp_path: Path
) -> None:
    storage = Storage(tmp_path / "storage")
    good, false = storage.commit(-1.0), storage.commit(-1.5, proven=-0.2)
    await asyncio.to_thread(
        serving.apply, build_adapter("x", source={"uri": good.uri, "digest": good.digest})
    )
    name, uid = await asyncio.to_thread(serving.pod)
    (storage.root / TOKEN_FILE).write_text(await asyncio.to_thread(serving.token))
    (storage.root / CA_FILE).write_text(await asyncio.to_thread(serving.authority))
    settings: dict[str, Any] = {
        "operator_url": f"https://{serving.operator.host_name}:{serving.operator.tls_port}",
        "namespace": serving.namespace,
        "deployment": "ad",
        "pod_name": name,
        "pod_uid": uid,
    }
    async with running_agent(engine, storage.root, **settings):
        await asyncio.to_thread(serving.wait, "Stable", good.digest)
        await asyncio.to_thread(
            serving.apply, build_adapter("x", source={"uri": false.uri, "digest": false.digest})
        )
        adapter = await asyncio.to_thread(serving.wait, "RolledBack", good.digest)
        assert adapter["rejected"][0]["reason"] == "NotActive"
