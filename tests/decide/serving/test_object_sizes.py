"""The largest AdapterDeployment that its limits allow fits into the objects of Kubernetes, with room to spare."""

import json
import uuid
from datetime import UTC, datetime

import pytest
from simulation.serving_world import World, digest_of

from tunesmith.api.adapterdeployment import (
    MAX_ACTIONS,
    MAX_ADAPTERS,
    MAX_HISTORY,
    MAX_PODS,
    MAX_REJECTED,
    AdapterDeploymentStatus,
)
from tunesmith.decide.serving.evidence import Arm, Counts, Evidence, RunCounts
from tunesmith.decide.serving.placement.peers import MAX_HOME_BYTES
from tunesmith.decide.serving.records.first_record import build_first_record
from tunesmith.decide.serving.records.record import (
    MAX_RECORDED_ACTIONS,
    ActionOutcome,
    AliasRecord,
    Lift,
    Rejection,
    RolloutCandidate,
    Watch,
)
from tunesmith.decide.serving.status.size import MAX_STATUS_BYTES, bounded
from tunesmith.manifests.serving_config_maps import build_desired_config_map
from tunesmith_contract.agent import (
    MAX_GENERATION,
    MAX_REJECTED_DIGESTS,
    DesiredState,
    OtherModel,
    Peer,
    Version,
)

LIMIT = 1024 * 1024
NOW = datetime(2030, 1, 1, tzinfo=UTC)
#: As long as the API takes them.
MAX_URI, MAX_REASON, MAX_PERSON = 512, 256, 128
#: Pods of two sets, while the engine changes.
PODS = 2 * 1000


def identity(number: int) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_URL, str(number))


def version(number: int) -> Version:
    return Version(version=number, digest=digest_of(str(number)), uri="pvc://artifacts/".ljust(MAX_URI, "x"))


#: Boot ID and pod UID of each agent.
AGENTS = [(identity(number).hex, str(identity(-number))) for number in range(PODS)]


def arm(pods: int) -> Arm:
    """A day of requests at a hundred a second on each pod, by a hundred clients."""
    counts = Counts(
        requests=8_640_000, errors=123_456, abandoned=23_456, engine_lost=1_234, refused=3_456, keys=100,
        requests_squared=746_496_000_000, failures_squared=215_825_600, requests_failures=12_692_851_200,
    )  # fmt: skip
    runs = {boot: RunCounts(pod_uid=uid, latest=counts, counted=True) for boot, uid in AGENTS[:pods]}
    return Arm(total=counts, sources=pods, runs=runs)


def largest_record(name: str, pods: int = PODS) -> AliasRecord:
    """All that a record can hold, with counters of so many pods."""
    return AliasRecord(
        name=name,
        stable=version(1),
        promoted=NOW,
        watch=Watch(previous=version(2), evidence=Evidence(candidate=arm(pods))),
        candidate=RolloutCandidate(
            version=version(3), weight=50, began=NOW, evidence=Evidence(candidate=arm(pods), stable=arm(pods))
        ),
        rejections=tuple(
            Rejection(
                version=version(10 + n),
                reason="ErrorRateTooHigh",
                message="x" * 512,
                time=NOW,
                by="x" * MAX_PERSON,
            )
            for n in range(MAX_REJECTED_DIGESTS)
        ),
        lifts=tuple(
            Lift(digest=digest_of(f"lift {n}"), time=NOW, by="x" * MAX_PERSON, reason="x" * MAX_REASON)
            for n in range(MAX_REJECTED_DIGESTS)
        ),
        actions=tuple(
            ActionOutcome(
                id="x" * 63,
                fingerprint="x" * 64,
                verb="promote",
                digest=digest_of("x"),
                by="x" * MAX_PERSON,
                manager="x" * 128,
                reason="x" * MAX_REASON,
                time=NOW,
                message="x" * 512,
            )
            for n in range(MAX_RECORDED_ACTIONS)
        ),
    )


def test_the_record_of_an_alias_on_two_sets_of_a_thousand_pods() -> None:
    record = largest_record("x" * 63)
    text = record.to_json()
    assert len(text.encode()) < 0.75 * LIMIT
    assert AliasRecord.read(text) == record


def test_a_record_with_counters_by_name_is_read() -> None:
    record = largest_record("x", pods=2)
    assert AliasRecord.read(record.model_dump_json(by_alias=True)) == record


@pytest.mark.parametrize("rows", ["[[7,0]]", "[[]]", "[7]", '[["x",0]]', '[[0,0,"many"]]', '{"a":1}'])
def test_counters_that_can_not_be_read_make_no_record(rows: str) -> None:
    arm_text = f'{{"runs":{rows}}}'
    text = f'{{"name":"x","agents":[["boot","uid"]],"watch":{{"evidence":{{"candidate":{arm_text}}}}}}}'
    with pytest.raises(ValueError, match=r"validation error|be read|unpack"):
        AliasRecord.read(text)


@pytest.mark.parametrize("changes_model", [False, True])
def test_what_the_pods_mount(changes_model: bool) -> None:
    """64 aliases on a thousand pods: all roll out, or rest while the base model changes."""
    records = [largest_record(f"{number:063}", pods=0) for number in range(MAX_ADAPTERS)]
    if changes_model:
        records = [record.model_copy(update={"candidate": None}) for record in records]
    aliases = tuple(record.to_desired() for record in records)
    other = OtherModel(
        base_model="x" * MAX_URI,
        aliases=tuple(alias.model_copy(update={"previous": None}) for alias in aliases),
        current="x" * MAX_URI,
    )
    desired = DesiredState(
        generation=MAX_GENERATION,
        aliases=aliases,
        peers=tuple(Peer(name=f"{n:063}", host="255.255.255.255", port=8000) for n in range(1000)),
        other=other if changes_model else None,
        pods=1000,
    )
    mounted = build_desired_config_map(World().resource, desired, build_first_record(records), "x" * 4000)
    size = sum(len(text.encode()) for text in mounted["data"].values())
    assert size + MAX_HOME_BYTES < 0.9 * LIMIT


def test_a_status_leaves_out_what_has_no_room() -> None:
    digest, person, sentence = digest_of("x"), "x" * 128, "x" * 512
    version = {"version": 1, "digest": digest, "uri": "x" * MAX_URI, "loadedOn": 1000}
    check = {"value": "0.01234", "requests": 10**9, "failures": 10, "verdict": "Inconclusive"}
    past = {"version": 1, "digest": digest, "verdict": "Unevaluated", "time": NOW}
    rejected = {"reason": "x" * 64, "time": NOW, "by": person}
    action = {
        "id": "x" * 63, "verb": "promote", "digest": digest, "result": "Refused", "message": sentence, "time": NOW,
        "by": person, "manager": person, "reason": "x" * MAX_REASON,
    }  # fmt: skip
    status = AdapterDeploymentStatus.model_validate(
        {
            "adapters": [
                {
                    "name": f"{number:063}", "phase": "Progressing", "reason": "x" * 64, "message": sentence,
                    "stable": version, "previous": version,
                    "candidate": version | {"analysis": [check | {"metric": f"{n:064}"} for n in range(8)]},
                    "history": [past] * MAX_HISTORY, "actions": [action] * MAX_ACTIONS,
                    "rejected": [rejected | {"digest": digest_of(str(n))} for n in range(MAX_REJECTED)],
                }
                for number in range(MAX_ADAPTERS)
            ],
            "pods": [
                {
                    "name": f"{number:0253}", "ready": False, "message": sentence,
                    "loaded": [f"{n:080}" for n in range(2 * MAX_ADAPTERS)],
                }
                for number in range(MAX_PODS)
            ],
        }
    )  # fmt: skip
    assert len(json.dumps(status.to_dict())) > LIMIT
    small = bounded(status)
    assert len(json.dumps(small.to_dict())) <= MAX_STATUS_BYTES
    assert len(small.adapters) == MAX_ADAPTERS and len(small.pods) == MAX_PODS
    assert (len(small.adapters[0].actions), small.adapters[0].message) == (1, sentence)
    assert bounded(small) == small
