"""Execution of plans: order, conflicts, and what a refusal about one alias leaves alone."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest
from api_server.fake_api import FakeApi

from tunesmith.cluster.execute import execute
from tunesmith.cluster.live import AgentHub
from tunesmith.controller_runtime.client import Client
from tunesmith.controller_runtime.errors import Conflict, NameTaken, Refused
from tunesmith.controller_runtime.events import EventRecorder
from tunesmith.controller_runtime.metrics import Metrics
from tunesmith.decide.plan import Apply, Create, Event, Mount, Plan, Publication, Push, Replace
from tunesmith.manifests.names import MANAGED_BY_LABEL
from tunesmith_contract.agent import AgentReport, DesiredAlias, DesiredState

BODY = {
    "apiVersion": "tunesmith.dev/v1alpha1",
    "kind": "AdapterDeployment",
    "metadata": {"name": "ad", "namespace": "team", "uid": "uid"},
    "status": {},
}


def config_map(name: str, **data: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "team"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def state(generation: int, **weights: int) -> DesiredState:
    aliases = tuple(DesiredAlias(name=name, weight=weight) for name, weight in sorted(weights.items()))
    return DesiredState(generation=generation, aliases=aliases)


NOW = datetime(2030, 1, 1, tzinfo=UTC)


async def proceed() -> None:
    pass


class Setting:
    """An API server in memory, and the hub with one connected agent."""

    def __init__(self) -> None:
        self.api = FakeApi()
        self.hub = AgentHub(lambda uid, seconds: None)
        self.connection = self.hub.connect("uid", "p")
        report = AgentReport(pod_name="p", pod_uid="p", boot_id="b", engine_ready=True, applied_generation=0)
        self.hub.report("uid", report, cast(Any, None))

    async def execute(self, *actions: Any) -> None:
        client = cast(Client, self.api)
        recorder = EventRecorder(client, Metrics(), "pod")
        await execute(client, self.hub, recorder, BODY, Plan(actions=actions), NOW, proceed)

    def names(self) -> set[str]:
        return {name for _, _, name in self.api.objects}


async def test_an_object_that_changed_since_it_was_read_is_left_alone_and_ends_the_pass() -> None:
    setting = Setting()
    read = setting.api.add(config_map("record", text="old"))
    setting.api.add(config_map("record", text="newer"))
    publication = Publication(state(1, a=0), state(0))
    with pytest.raises(Conflict):
        await setting.execute(Replace.of(read, config_map("record", text="mine"), "a"), Push(publication))
    assert setting.api.objects["ConfigMap", "team", "record"]["data"] == {"text": "newer"}
    assert setting.connection._desired is None


async def test_an_object_that_must_not_exist_is_not_overwritten() -> None:
    setting = Setting()
    await setting.execute(Replace.of(None, config_map("record", text="mine")))
    with pytest.raises(Conflict):
        await setting.execute(Replace.of(None, config_map("record", text="again")))
    assert setting.api.objects["ConfigMap", "team", "record"]["data"] == {"text": "mine"}


async def test_what_is_refused_for_one_alias_is_not_published_and_keeps_no_other_waiting() -> None:
    setting = Setting()
    setting.api.failures["create", "ConfigMap"] = [Refused("quota", 403)]
    publication = Publication(state(2, a=50, b=0), state(1, a=10, b=10))
    with pytest.raises(Refused):
        await setting.execute(
            Replace.of(None, config_map("record-a"), "a"),
            Replace.of(None, config_map("record-b"), "b"),
            Mount(config_map("desired"), publication),
            Push(publication),
            Create(config_map("version-a"), "a"),
            Create(config_map("version-b"), "b"),
        )
    assert setting.names() == {"record-b", "desired", "version-b"}
    sent = await setting.connection.next()
    assert isinstance(sent, DesiredState)
    assert [(alias.name, alias.weight) for alias in sent.aliases] == [("a", 10), ("b", 0)]
    assert sent.to_json() == setting.api.objects["ConfigMap", "team", "desired"]["data"]["state.json"]


async def test_a_refused_action_with_a_condition_of_its_own_withholds_nothing_else() -> None:
    setting = Setting()
    client, recorder = cast(Client, setting.api), EventRecorder(cast(Client, setting.api), Metrics(), "pod")
    body = setting.api.add({**BODY, "status": {}})
    setting.api.failures["create", "Job"] = [
        Refused("exceeded quota: team, used: a=1, limited: a=1", 403, "Forbidden")
    ]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"namespace": "team", "name": "job"}}
    ready = {
        "type": "Ready",
        "status": "Unknown",
        "reason": "Training",
        "message": "",
        "lastTransitionTime": "x",
    }
    actions = (
        Create(config_map("record")),
        Create(job, condition="JobCreated"),
        Create(config_map("after the job"), condition="JobCreated"),
        Create(config_map("note"), condition="EvaluationCreated"),
    )
    told = (Event("Training", "runs", condition="JobCreated"), Event("Prepared", "done"))
    plan = Plan(actions, {"phase": "Training", "conditions": [ready]}, told)
    executed = await execute(client, setting.hub, recorder, body, plan, NOW, proceed)
    assert executed.refused is not None
    assert {"record", "note"} <= setting.names()
    assert "after the job" not in setting.names()
    status = executed.body["status"]
    assert status["phase"] == "Training"
    shown = {item["type"]: (item["status"], item["reason"], item["message"]) for item in status["conditions"]}
    words = ("False", "Refused", "exceeded quota: team, limited: a=1")
    assert shown["JobCreated"] == shown["Ready"] == words
    assert "EvaluationCreated" not in shown
    await recorder.flush(1)
    events = [event["reason"] for key, event in setting.api.objects.items() if key[0] == "Event"]
    assert sorted(events) == ["Prepared", "Refused"]
    again = await execute(client, setting.hub, recorder, executed.body, plan, NOW, proceed)
    assert again.refused is None
    assert "after the job" in setting.names()


async def test_a_record_that_is_refused_withholds_the_status_that_follows_from_it() -> None:
    setting = Setting()
    client, recorder = cast(Client, setting.api), EventRecorder(cast(Client, setting.api), Metrics(), "pod")
    body = setting.api.add({**BODY, "status": {}})
    setting.api.failures["create", "ConfigMap"] = [Refused("exceeded quota", 403, "Forbidden")]
    with pytest.raises(Refused):
        await execute(
            client,
            setting.hub,
            recorder,
            body,
            Plan((Create(config_map("record")),), {"phase": "Succeeded"}),
            NOW,
            proceed,
        )
    assert ("status", "AdapterDeployment") not in setting.api.calls


def owned(name: str, uid: str) -> dict[str, Any]:
    body = config_map(name, text=uid)
    return {**body, "metadata": {**body["metadata"], "ownerReferences": [{"uid": uid}]}}


def managed(manager: str) -> dict[str, Any]:
    body = config_map("verdicts", text=manager)
    return {**body, "metadata": {**body["metadata"], "labels": {MANAGED_BY_LABEL: manager}}}


@pytest.mark.parametrize(
    ("existing", "wanted"),
    [(owned("a", "stranger"), owned("a", "uid")), (managed("helm"), managed("tunesmith"))],
)
@pytest.mark.parametrize("action", [Create, Apply, lambda manifest: Replace.of(None, manifest)])
async def test_an_object_of_somebody_else_is_left_alone_and_does_not_count_as_done(
    existing: Any, wanted: Any, action: Any
) -> None:
    setting = Setting()
    setting.api.add(existing)
    with pytest.raises(NameTaken, match="is not this resource's"):
        await setting.execute(action(wanted))
    [left] = setting.api.objects.values()
    assert left["data"] == existing["data"]


@pytest.mark.parametrize("wanted", [owned("a", "uid"), managed("tunesmith")])
async def test_an_own_object_counts_as_created(wanted: Any) -> None:
    setting = Setting()
    await setting.execute(Create(wanted), Create(wanted), Apply(wanted))


async def test_an_object_that_is_gone_when_its_owner_is_asked_for_is_not_taken_for_made() -> None:
    """Between the two answers the garbage collector has removed one of an earlier resource, or a proxy has answered."""
    setting = Setting()
    setting.api.failures["create", "ConfigMap"] = [Conflict("exists already", 409, "AlreadyExists")]
    with pytest.raises(Conflict):
        await setting.execute(Create(config_map("record")))
    await setting.execute(Create(config_map("record")))
    assert setting.names() == {"record"}
