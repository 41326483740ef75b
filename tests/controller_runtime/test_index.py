"""Children in memory: newer versions win, deleted objects are dropped, own writes are there at once."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from api_server.fake_api import FakeClock

from tunesmith.controller_runtime.bodies import Bodies, Key
from tunesmith.controller_runtime.index import ChildIndex
from tunesmith.controller_runtime.kept import Packed
from tunesmith.controller_runtime.tombstones import REMEMBERED_SECONDS
from tunesmith.manifests.names import OWNER_UID_LABEL
from tunesmith.manifests.objects import deletion_requested_at
from tunesmith.manifests.verdict_records import VERDICTS_OWNER, verdicts_group

JOB = ("batch/v1", "Job")


def build_child(name: str, version: int, owner: str = "owner", namespace: str = "ns") -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "labels": {OWNER_UID_LABEL: owner},
        }
    }


def followed() -> tuple[ChildIndex, list[str]]:
    changed: list[str] = []
    index = ChildIndex(changed.append)
    index.follow(*JOB, lambda: True)
    return index, changed


def take_list(index: ChildIndex, version: int, *pages: Any, **arguments: Any) -> None:
    listing = index.begin_list(*JOB, "ns", **arguments)
    listing.add([], version)
    for page in pages:
        listing.add([page], version)
    listing.end()


def names(index: ChildIndex, owner: str = "owner") -> set[tuple[str, str]]:
    children = index.find(*JOB, owner)
    assert children is not None
    return {(body["metadata"]["name"], body["metadata"]["resourceVersion"]) for body in children}


def test_unknown_kinds_and_unsynced_ones_are_not_answered() -> None:
    index = ChildIndex(lambda uid: None)
    assert index.find(*JOB, "owner") is None
    index.follow(*JOB, lambda: False)
    assert index.find(*JOB, "owner") is None


def test_an_answer_that_is_no_stored_object_is_not_kept() -> None:
    index, _ = followed()
    assert not index.put("authentication.k8s.io/v1", "TokenReview", {"metadata": {"creationTimestamp": None}})


def test_own_write_is_there_and_its_echo_wakes_nobody() -> None:
    index, changed = followed()
    index.put(*JOB, build_child("a", 5))
    index.handle_event(*JOB, "ADDED", build_child("a", 5))
    index.handle_event(*JOB, "MODIFIED", build_child("a", 4))
    assert names(index) == {("a", "5")}
    assert changed == []
    index.handle_event(*JOB, "MODIFIED", build_child("a", 6) | {"spec": {"suspend": True}})
    assert changed == ["owner"]


def test_a_list_removes_what_is_gone_but_not_what_is_younger_or_elsewhere() -> None:
    index, changed = followed()
    for child in (build_child("gone", 1), build_child("young", 20), build_child("far", 2, namespace="other")):
        index.put(*JOB, child)
    take_list(index, 10, build_child("new", 9))
    assert names(index) == {("young", "20"), ("far", "2"), ("new", "9")}
    assert changed == ["owner", "owner"]


def test_deleted_children_are_forgotten() -> None:
    index, changed = followed()
    index.put(*JOB, build_child("a", 1))
    index.handle_event(*JOB, "DELETED", build_child("a", 2))
    assert names(index) == set()
    assert changed == ["owner"]


def test_what_was_deleted_does_not_come_back_with_a_late_response() -> None:
    clock, changed = FakeClock(), list[str]()
    index = ChildIndex(changed.append, clock)
    index.follow(*JOB, lambda: True)
    index.handle_event(*JOB, "DELETED", build_child("a", 3))
    assert not index.put(*JOB, build_child("a", 2))
    index.handle_event(*JOB, "MODIFIED", build_child("a", 2))
    assert names(index) == set()
    clock.advance(REMEMBERED_SECONDS)
    index.handle_event(*JOB, "DELETED", build_child("b", 9))
    assert index.put(*JOB, build_child("a", 2))
    assert len(index._deleted) == 1


def test_the_list_of_one_owner_removes_its_ghosts_alone() -> None:
    index, changed = followed()
    for child in (build_child("ghost", 1), build_child("young", 20), build_child("other", 2, "other")):
        index.put(*JOB, child)
    take_list(index, 10, owner_uid="owner")
    assert names(index) == {("young", "20")}
    assert names(index, "other") == {("other", "2")}
    assert changed == ["owner"]


def test_an_older_list_counts_once_the_servers_data_went_back() -> None:
    index, changed = followed()
    for child in (build_child("kept", 50), build_child("lost", 60)):
        index.put(*JOB, child)
    index.handle_event(*JOB, "DELETED", build_child("back", 70))
    changed.clear()
    take_list(index, 40, build_child("kept", 30), build_child("back", 31), went_back=True)
    assert names(index) == {("kept", "30"), ("back", "31")}
    assert changed == ["owner"] * 3
    assert index.put(*JOB, build_child("lost", 41))


def test_an_odd_object_is_left_out_and_keeps_no_other_from_being_listed() -> None:
    index, _ = followed()
    odd = build_child("odd", 1)
    odd["metadata"]["resourceVersion"] = "odd"
    index.put(*JOB, build_child("odd", 1))
    take_list(index, 10, odd, build_child("well", 2))
    assert names(index) == {("odd", "1"), ("well", "2")}


def build_body(uid: str, version: int) -> dict[str, Any]:
    metadata = {"namespace": "ns", "name": "a", "uid": uid, "resourceVersion": str(version)}
    return {"kind": "FineTuneJob", "metadata": metadata}


def test_late_news_of_a_former_resource_does_not_touch_its_successor() -> None:
    bodies, key = Bodies(), Key("FineTuneJob", "ns", "a")
    assert bodies.put(build_body("old", 1))
    assert bodies.put(build_body("new", 5))
    assert not bodies.put(build_body("new", 5))
    assert not bodies.drop(build_body("old", 4))
    assert bodies.get(key) == build_body("new", 5)
    assert (bodies.key("old"), bodies.key("new")) == (None, key)


def test_a_deleted_resource_does_not_come_back_with_a_late_response() -> None:
    bodies, key = Bodies(), Key("FineTuneJob", "ns", "a")
    assert bodies.put(build_body("uid", 1))
    assert bodies.drop(build_body("uid", 3))
    assert not bodies.put(build_body("uid", 2))
    assert bodies.get(key) is None
    bodies.go_back()
    assert bodies.put(build_body("uid", 2))
    assert bodies.put(build_body("uid", 1), went_back=True)


def build_pod(name: str, version: int, exit_code: int | None = None) -> dict[str, Any]:
    state = {"running": {}} if exit_code is None else {"terminated": {"exitCode": exit_code}}
    return build_child(name, version) | {
        "status": {"containerStatuses": [{"name": "trainer", "state": state}]}
    }


def test_pods_that_ended_before_their_removal_are_kept_until_they_are_forgotten() -> None:
    index = ChildIndex(lambda uid: None)
    index.follow("v1", "Pod", lambda: True)
    for pod in (build_pod("ended", 1), build_pod("vanished", 2), build_pod("stays", 3)):
        index.handle_event("v1", "Pod", "ADDED", pod)
    index.handle_event("v1", "Pod", "DELETED", build_pod("ended", 4, exit_code=11))
    index.handle_event("v1", "Pod", "DELETED", build_pod("vanished", 5))
    assert [pod["metadata"]["name"] for pod in index.removed_pods("owner")] == ["ended"]
    index.forget_removed_pods("owner", keep=lambda pod: pod["metadata"]["name"] == "ended")
    assert len(index.removed_pods("owner")) == 1
    index.forget_removed_pods("owner")
    assert index.removed_pods("owner") == ()


def test_pods_that_a_backup_has_brought_back_no_longer_count_as_removed() -> None:
    """They run again: how they ended later never was."""
    index = ChildIndex(lambda uid: None)
    index.follow("v1", "Pod", lambda: True)
    index.handle_event("v1", "Pod", "ADDED", build_pod("back", 30, exit_code=143))
    index.handle_event("v1", "Pod", "DELETED", build_pod("back", 31, exit_code=143))
    assert index.removed_pods("owner")
    listing = index.begin_list("v1", "Pod", "ns", went_back=True)
    listing.add([build_pod("back", 20)], 25)
    listing.end()
    assert not index.removed_pods("owner")
    assert [pod["metadata"]["resourceVersion"] for pod in index.find("v1", "Pod", "owner") or ()] == ["20"]


def test_a_pod_has_ended_when_its_trainer_has_whatever_runs_beside_it() -> None:
    index = ChildIndex(lambda uid: None)
    index.follow("v1", "Pod", lambda: True)
    beside = {"name": "istio-proxy", "state": {"running": {}}}
    ended, running = build_pod("ended", 1, exit_code=0), build_pod("running", 2)
    ended["status"]["containerStatuses"].insert(0, beside)
    running["status"]["containerStatuses"].insert(0, {**beside, "state": {"terminated": {"exitCode": 0}}})
    for pod in (ended, running):
        index.handle_event("v1", "Pod", "ADDED", pod)
        index.handle_event("v1", "Pod", "DELETED", pod)
    assert [pod["metadata"]["name"] for pod in index.removed_pods("owner")] == ["ended"]


def test_the_first_request_to_delete_a_pod_is_kept_through_its_removal() -> None:
    """Kubelet removes a pod that has ended, and the API server sets the time of its deletion anew."""
    index = ChildIndex(lambda uid: None)
    index.follow("v1", "Pod", lambda: True)
    asked = {"deletionTimestamp": "2030-01-01T10:00:30Z", "deletionGracePeriodSeconds": 30}
    removed = {"deletionTimestamp": "2030-01-01T10:00:31Z", "deletionGracePeriodSeconds": 0}
    events = {
        "stopped": ((1, {}), (2, asked), (3, removed), (4, removed)),
        # It had ended before anybody deleted it.
        "ended": ((5, {}), (6, removed), (7, removed)),
        "stopped and never listed": ((8, asked), (9, removed)),
    }
    for name, states in events.items():
        *modified, last = (build_pod(name, version, exit_code=137) for version, _ in states)
        for pod, (_, deletion) in zip((*modified, last), states, strict=True):
            pod["metadata"] |= deletion
            index.handle_event("v1", "Pod", "DELETED" if pod is last else "MODIFIED", pod)
    found = {pod["metadata"]["name"]: deletion_requested_at(pod) for pod in index.removed_pods("owner")}
    at = datetime(2030, 1, 1, 10, tzinfo=UTC)
    assert found == {
        "stopped": at,
        "ended": at + timedelta(seconds=31),
        "stopped and never listed": at,
    }


def test_children_are_kept_without_what_nobody_reads() -> None:
    index = ChildIndex(lambda uid: None)
    for kind in (JOB, ("v1", "Pod")):
        index.follow(*kind, lambda: True)
    volumes = [
        {"name": "work", "emptyDir": {}},
        {"name": "key", "secret": {"secretName": "rows"}},
        {"name": "authorities", "configMap": {"name": "trust"}},
    ]
    container = {"name": "trainer", "image": "image", "env": [{"name": "A", "value": "1"}]}
    pod_spec = {
        "nodeName": "node",
        "containers": [container],
        "initContainers": [container],
        "volumes": volumes,
    }
    job = build_child("job", 1) | {"spec": {"suspend": True, "template": {"spec": pod_spec}}}
    job["metadata"] |= {
        "managedFields": [{}],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
    }
    index.put(*JOB, job)
    index.put("v1", "Pod", build_child("pod", 1) | {"spec": pod_spec, "status": {"phase": "Running"}})
    (kept,), (pod,) = index.find(*JOB, "owner") or (), index.find("v1", "Pod", "owner") or ()
    assert kept["metadata"] == build_child("job", 1)["metadata"] | {"annotations": {}}
    short = [{"name": "trainer", "image": "image"}]
    spec = {"containers": short, "initContainers": short, "volumes": volumes[1:]}
    assert pod["spec"] == spec
    assert kept["spec"] == {"suspend": True, "template": {"spec": spec}}
    assert pod["status"] == {"phase": "Running"}


def test_children_of_ended_resources_are_packed_and_read_as_they_were() -> None:
    index, changed = followed()
    take_list(index, 10, build_child("a", 5), build_child("b", 6, "other"))
    first = index.find(*JOB, "owner")
    assert first == (build_child("a", 5) | {"apiVersion": JOB[0], "kind": JOB[1], "spec": {}},)
    assert index.find(*JOB, "owner") == first
    index.set_ended("owner", True)
    assert index.find(*JOB, "owner") == first
    assert index.find(*JOB, "owner")[0] is not first[0]  # type: ignore[index]
    index.handle_event(*JOB, "MODIFIED", build_child("a", 5))
    index.handle_event(*JOB, "MODIFIED", build_child("a", 7) | {"spec": {"suspend": True}})
    assert names(index) == {("a", "7")}
    take_list(index, 20)
    assert (names(index), names(index, "other")) == (set(), set())
    assert changed == ["owner", "other", "owner", "owner", "other"]


JOB_ENDS = {"status": {"conditions": [{"type": "SuccessCriteriaMet", "status": "True"}]}}
JOB_RUNS = {"status": {"active": 1, "conditions": [{"type": "Suspended", "status": "False"}]}}


@pytest.mark.parametrize(
    ("kind", "event_type", "state", "is_end"),
    [
        (JOB, "ADDED", {}, False),
        (JOB, "MODIFIED", JOB_RUNS, False),
        (JOB, "MODIFIED", JOB_ENDS, True),
        (JOB, "DELETED", JOB_RUNS, True),
        (("v1", "Pod"), "MODIFIED", {"status": {"phase": "Running"}}, False),
        (("v1", "Pod"), "MODIFIED", {"status": {"phase": "Failed"}}, True),
        (("v1", "Pod"), "MODIFIED", {"status": build_pod("", 1)["status"]}, False),
        (("v1", "Pod"), "MODIFIED", {"status": build_pod("", 1, exit_code=0)["status"]}, True),
        (("v1", "ConfigMap"), "MODIFIED", {"data": {}}, False),
    ],
)
def test_the_end_of_a_child_is_told_apart_from_its_steps(
    kind: tuple[str, str], event_type: str, state: dict[str, Any], is_end: bool
) -> None:
    ends: list[str] = []
    steps: list[str] = []
    index = ChildIndex(ends.append, on_step=steps.append)
    index.follow(*kind, lambda: True)
    index.handle_event(*kind, event_type, build_child("a", 1) | state)
    assert (ends, steps) == ((["owner"], []) if is_end else ([], ["owner"]))


POD = ("v1", "Pod")
STARTED = {"status": {"startTime": "2030-01-01T00:00:00Z", "active": 1, "ready": 0}}
NO_NODE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}


@pytest.mark.parametrize(
    ("kind", "before", "after", "is_told"),
    [
        (JOB, {}, STARTED, False),
        (JOB, STARTED, {"status": {**STARTED["status"], "ready": 1}}, False),
        (JOB, STARTED, STARTED | {"spec": {"suspend": True}}, True),
        (JOB, STARTED, {"status": {"conditions": [{"type": "Suspended", "status": "True"}]}}, True),
        (
            POD,
            {"status": {"phase": "Pending"}},
            {"status": {"phase": "Pending", "conditions": [NO_NODE]}},
            True,
        ),
        (POD, {"status": {"conditions": [NO_NODE]}}, {"status": {"conditions": [NO_NODE]}}, False),
    ],
)
def test_changes_that_no_plan_reads_are_not_told(
    kind: tuple[str, str], before: dict[str, Any], after: dict[str, Any], is_told: bool
) -> None:
    steps: list[str] = []
    index = ChildIndex(lambda uid: None, on_step=steps.append)
    index.follow(*kind, lambda: True)
    index.put(*kind, build_child("a", 1) | before)
    index.handle_event(*kind, "MODIFIED", build_child("a", 2) | after)
    assert steps == (["owner"] if is_told else [])


@pytest.mark.parametrize(
    ("status", "is_told"),
    [
        ({"phase": "Pending", "qosClass": "Burstable"}, False),
        ({"phase": "Pending", "conditions": [NO_NODE]}, True),
        ({"phase": "Running"}, True),
    ],
)
def test_a_new_pod_is_told_once_it_says_something(status: dict[str, Any], is_told: bool) -> None:
    steps: list[str] = []
    index = ChildIndex(lambda uid: None, on_step=steps.append)
    index.follow(*POD, lambda: True)
    index.handle_event(*POD, "ADDED", build_child("a", 1) | {"status": status})
    assert steps == (["owner"] if is_told else [])


def test_a_child_that_is_being_deleted_is_told_at_once() -> None:
    ends: list[str] = []
    index = ChildIndex(ends.append, on_step=lambda uid: None)
    index.follow(*JOB, lambda: True)
    child = build_child("a", 1)
    child["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    index.handle_event(*JOB, "MODIFIED", child)
    assert ends == ["owner"]


CONFIG_MAP = ("v1", "ConfigMap")
DIGESTS = ["sha256:" + letter * 64 for letter in "ab"]


def test_owners_are_found_by_the_digests_in_their_config_maps() -> None:
    index = ChildIndex(lambda uid: None)
    assert index.owners_mentioning(DIGESTS) is None
    index.follow(*CONFIG_MAP, lambda: True)
    for owner, digest in zip(("one", "two"), DIGESTS, strict=True):
        index.put(
            *CONFIG_MAP, build_child(owner, 1, owner) | {"data": {"record.json": f'{{"d":"{digest}"}}'}}
        )

    def found(*digests: str) -> set[str]:
        return set(index.owners_mentioning(digests) or ())

    assert (found(DIGESTS[0]), found(*DIGESTS), found()) == ({"one"}, {"one", "two"}, set())
    index.set_ended("one", True)
    assert found(DIGESTS[0]) == {"one"}
    index.drop(*CONFIG_MAP, build_child("one", 2, "one"))
    assert found(*DIGESTS) == {"two"}


def test_verdicts_are_found_by_their_names_and_stay_packed() -> None:
    index = ChildIndex(lambda uid: None)
    index.follow(*CONFIG_MAP, lambda: True)
    for name in ("verdicts-a", "verdicts-b"):
        index.put(*CONFIG_MAP, build_child(name, 1, VERDICTS_OWNER) | {"data": {"artifact": name}})
    for namespace, name, known in (
        ("ns", "verdicts-a", 1),
        ("ns", "verdicts-c", 0),
        ("other", "verdicts-a", 0),
    ):
        found = index.find(*CONFIG_MAP, verdicts_group(namespace, name))
        assert found is not None
        assert [body["data"]["artifact"] for body in found] == [name] * known
    kept = index._objects[CONFIG_MAP].values()
    assert all(isinstance(each, Packed) for of_owner in kept for each in of_owner.values())
