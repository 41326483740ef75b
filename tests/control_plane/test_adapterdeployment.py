"""An AdapterDeployment on a real API server: the operator as a process, agents with the tokens of their pods.

Most agents follow a script; one test has the real agent in front of a fake engine.
"""

import asyncio
import copy
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from agents.agent_harness import Storage, running_agent
from agents.fake_engine import FakeEngine
from agents.scripted_agent import ScriptedAgent
from control_plane.restartable_operator import RestartableOperator
from control_plane.served_adapters import KIND, Serving
from simulation.serving_world import build_adapter, digest_of

from tunesmith.manifests.names import ALIAS_LABEL
from tunesmith.manifests.serving_config_maps import RECORD_KEY
from tunesmith_cluster.api import ApiError
from tunesmith_cluster.client import KubectlError, eventually
from tunesmith_cluster.fake import ControlPlane
from tunesmith_contract.agent import AccessReport, ClientUsage
from tunesmith_contract.layout import CA_FILE, TOKEN_FILE


@pytest.fixture
def serving(server: ControlPlane, operator: RestartableOperator, tmp_path: Path) -> Serving:
    """What is needed to serve."""
    return Serving(server, tmp_path, operator)


@pytest.fixture
def agent(serving: Serving) -> Iterator[ScriptedAgent]:
    """Version 1 is stable, and held by an agent that follows a script."""
    serving.apply(build_adapter("one"))
    with serving.agent() as agent:
        serving.wait("Stable", digest_of("one"), timeout=60)
        yield agent


def test_a_version_goes_up_step_by_step_and_a_bad_one_comes_back(
    serving: Serving, agent: ScriptedAgent
) -> None:
    eventually(lambda: {"Ready", "Available"} <= serving.true_conditions(), what="a ready deployment")
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

    told = {"Loading", "StepStarted", "Promoted", "RolledBack"}
    eventually(lambda: told <= serving.event_reasons(), what="the events of both rollouts")


def test_tokens_of_clients_are_counted_shown_and_kept(serving: Serving) -> None:
    month = f"{datetime.now(UTC):%Y-%m}"
    used = ClientUsage(client="ada", period=month, tokens=41, budget=100)
    serving.apply(build_adapter("one"), access={"keysSecretRef": {"name": "clients"}})
    with serving.agent() as agent:
        agent.access = AccessReport(run="first", clients=1, usage=(used,))
        serving.wait("Stable", digest_of("one"), timeout=60)
        shown = {"client": "ada", "period": month, "used": 41, "budget": 100}
        eventually(lambda: serving.status.get("access") == {"clients": 1, "budgets": [shown]}, what="status")
        eventually(lambda: agent.usage and agent.usage.counted_by_others[0].tokens == 0, what="a message")
        eventually(lambda: agent.desired.pods == 1, what="the number of pods that share limits")
        # The pod lost its disk, and the operator its memory.
        agent.access = AccessReport(run="second", clients=1, usage=(used.model_copy(update={"tokens": 1}),))
        serving.operator.kill()
        serving.operator.start()
        eventually(lambda: serving.status["access"]["budgets"][0]["used"] == 42, 40, what="the sum of both")
        eventually(lambda: agent.usage and agent.usage.counted_by_others[0].tokens == 41, what="a message")
        message = "clients with keys in Secret clients: 1"
        eventually(lambda: serving.condition("AccessRestricted").get("message") == message, what="condition")


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


def test_another_engine_takes_over_when_its_pod_holds_the_adapters(
    serving: Serving, agent: ScriptedAgent
) -> None:
    first = serving.pod()[0]
    assert serving.selected_pods() == {first}
    # The claims keep all pods on one node, which has GPUs for both.
    engine = {"gpus": 1, "maxRank": 8, "scaleDownDelay": "2s", "updateStrategy": "SecondSet"}
    serving.apply(build_adapter("one"), engine=engine)
    selector = "tunesmith.dev/set=2"
    second = serving.pod(selector)[0]
    eventually(lambda: serving.status.get("nextSet") == "0/1", what="the progress of the next set")
    assert serving.selected_pods() == {first}
    with serving.agent(selector):
        eventually(lambda: serving.selected_pods() == {second}, what="the switch to the new pod")
        eventually(lambda: first not in serving.pod_names(), 60, what="the end of the former pod")
        serving.wait("Stable", digest_of("one"))
        # The former Deployment goes before the status that no longer has it is written.
        eventually(lambda: serving.sets() == [(2, "Serving")], what="the new set alone in status")


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
    eventually(lambda: "ActionDone" in serving.event_reasons(), what="an event about an action")


def test_an_edited_record_is_rebuilt_from_the_revisions(serving: Serving, agent: ScriptedAgent) -> None:
    serving.apply(build_adapter("two"))
    serving.wait("Progressing", digest_of("one"))
    agent.counters["expenses", digest_of("two")] = (20, 0)
    serving.wait("Stable", digest_of("two"))
    record = serving.config_maps(ALIAS_LABEL)[0]
    edited = {"data": {RECORD_KEY: record["data"][RECORD_KEY].replace('"stable"', '"stabel"')}}
    serving.server.api.merge(f"{serving.config_maps_path}/{record['metadata']['name']}", edited)
    eventually(lambda: "RecordRebuilt" in serving.event_reasons(), what="the rebuilt record")
    assert serving.wait("Stable", digest_of("two"))["stable"]["version"] == 2
    assert agent.desired.aliases[0].stable is not None
    assert agent.desired.aliases[0].stable.digest == digest_of("two")


def test_restored_without_status_what_was_rolled_back_stays_so(
    serving: Serving, agent: ScriptedAgent
) -> None:
    """From a backup come the manifest and the history: all else is the cluster's, and is made anew."""
    serving.apply(build_adapter("two"))
    serving.wait("Progressing", digest_of("one"))
    agent.counters["expenses", digest_of("two")] = (20, 15)
    serving.wait("RolledBack", digest_of("one"))
    history_path = f"{serving.config_maps_path}/ad-rollout-history"
    history = serving.server.api.get(history_path)
    serving.server.kubectl("delete", f"--namespace={serving.namespace}", "adapterdeployment", "ad")
    # The operator writes it anew as long as it has not heard of the end of its resource.
    eventually(lambda: not serving.pod_uids(), 60, what="the end of the pods")
    serving.server.api.delete(history_path)
    metadata = {key: history["metadata"][key] for key in ("name", "labels") if key in history["metadata"]}
    serving.server.api.create(serving.config_maps_path, {"metadata": metadata, "data": history["data"]})
    serving.apply(build_adapter("two"))
    with serving.agent() as restored:
        adapter = serving.wait("RolledBack", digest_of("one"), timeout=60)
        assert adapter["rejected"][0]["digest"] == digest_of("two")
        told = [(None, (digest_of("two"),))]
        eventually(
            lambda: [(alias.candidate, alias.rejected) for alias in restored.desired.aliases] == told,
            what="the pod to be told",
        )
        serving.apply(build_adapter("three"))
        assert serving.wait("Progressing", digest_of("one"))["candidate"]["version"] == 3


@contextmanager
def rules_of_names_lifted(serving: Serving) -> Iterator[None]:
    """Within the block adapters may have any name, as in a release without the rules."""
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{KIND}"
    versions = serving.server.api.get(path)["spec"]["versions"]
    lifted = copy.deepcopy(versions)
    spec = lifted[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    del spec["adapters"]["items"]["properties"]["name"]["x-kubernetes-validations"]
    serving.server.api.merge(path, {"spec": {"versions": lifted}})
    yield
    serving.server.api.merge(path, {"spec": {"versions": versions}})


def test_an_alias_that_a_rule_refuses_now_is_named_and_holds_up_no_other(serving: Serving) -> None:
    adapters = [build_adapter("one"), build_adapter("red", "base")]

    def is_taken() -> bool:
        try:
            serving.apply(adapters[0], adapters=adapters)
        except KubectlError:
            return False
        return True

    with rules_of_names_lifted(serving):
        eventually(is_taken, what="the end of the rules")
    # The API server takes a while to know a rule, and then still takes the status of what breaks it.
    renamed = [build_adapter("one"), build_adapter("red", "a..b")]
    dry = {"spec": {"adapters": renamed}}
    path = f"/apis/tunesmith.dev/v1alpha1/namespaces/{serving.namespace}/adapterdeployments/ad?dryRun=All"

    def is_refused() -> bool:
        try:
            serving.server.api.merge(path, dry)
        except ApiError:
            return True
        return False

    eventually(is_refused, what="the rules")
    eventually(lambda: serving.condition("Stalled").get("reason") == "InvalidAlias", what="the refused name")
    assert serving.condition("Stalled")["message"].startswith("spec.adapters[1].name: base is the name of")
    with serving.agent():
        serving.wait("Stable", digest_of("one"), timeout=60)


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
