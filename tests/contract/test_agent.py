"""Protocol of operator and agents: releases that differ understand each other, and terms order the generations."""

import json
from typing import Any

import pytest
from agents.first_release import FirstAgentReport, FirstDesiredState
from pydantic import ValidationError

from tunesmith_contract.agent import (
    FEATURES,
    PODS,
    PREVIOUS,
    REJECTED,
    AccessReport,
    AgentReport,
    ClientUsage,
    DesiredAlias,
    DesiredState,
    LoadedVersion,
    LoadState,
    OtherModel,
    Peer,
    Version,
    VersionCounters,
    first_generation,
)

ONE, TWO, THREE = (
    Version(version=number, digest="sha256:" + str(number) * 64, uri=f"pvc://claim/{number}")
    for number in (1, 2, 3)
)
FULL = DesiredState(
    generation=first_generation(7) + 3,
    aliases=(
        DesiredAlias(
            name="sql", stable=ONE, candidate=TWO, weight=10, previous=THREE, rejected=(THREE.digest,)
        ),
        DesiredAlias(name="new"),
    ),
    other=OtherModel(
        base_model="hf://org/next",
        aliases=(DesiredAlias(name="sql", stable=THREE), DesiredAlias(name="new", rejected=(ONE.digest,))),
        current="hf://org/model",
    ),
    peers=(Peer(name="pod-1", host="10.0.0.1", port=8000, homes=("sql",)),),
    pods=3,
)


def test_the_first_release_reads_what_it_understands() -> None:
    with pytest.raises(ValidationError, match="previous"):
        FirstDesiredState.model_validate_json(FULL.to_json())
    read = FirstDesiredState.model_validate_json(FULL.for_features(()).to_json())
    assert read.generation == FULL.generation
    assert read.aliases[0].candidate is not None and read.aliases[0].candidate.digest == TWO.digest
    assert [alias.weight for alias in read.aliases] == [10, 0]


def test_the_first_release_writes_what_is_read() -> None:
    first = FirstDesiredState.model_validate_json(FULL.for_features(()).to_json())
    assert DesiredState.model_validate_json(first.to_json()) == FULL.for_features(())


def test_a_feature_is_left_out_by_name() -> None:
    alias = FULL.for_features((REJECTED, "unheard-of")).aliases[0]
    assert (alias.previous, alias.rejected) == (None, (THREE.digest,))
    assert FULL.for_features(FEATURES) == FULL
    without = FULL.for_features((PREVIOUS,))
    assert (without.aliases[0].rejected, without.other, without.pods) == ((), None, None)
    assert FULL.for_features((PODS,)).pods == 3


def test_pods_on_another_base_model_serve_their_own_versions() -> None:
    stable = {
        uri: FULL.for_base_model(uri).aliases[0].stable for uri in ("hf://org/model", "hf://org/next", "")
    }
    assert stable == {"hf://org/model": ONE, "hf://org/next": THREE, "": ONE}
    assert FULL.for_base_model("hf://org/next").other is None
    assert DesiredState.model_validate_json(FULL.to_json()).digest() == FULL.digest()


def test_an_agent_ignores_what_a_later_operator_adds() -> None:
    later = json.loads(FULL.to_json())
    later["shadow"] = {"share": 5}
    later["aliases"][0]["shadow"] = later["aliases"][0]["stable"]["size"] = 5
    assert DesiredState.model_validate(later) == FULL


def test_reports_are_read_by_older_and_later_operators() -> None:
    version = LoadedVersion(alias="sql", digest=ONE.digest, state=LoadState.ACTIVE, breaker_open=True)
    counters = VersionCounters(alias="sql", digest=ONE.digest, requests=5, errors=1, abandoned=2, keys=3)
    report = AgentReport(
        pod_name="p", pod_uid="u", boot_id="b", engine_ready=True, applied_generation=4,
        applied_digest=FULL.digest(), features=FEATURES, versions=(version,), counters=(counters,),
        access=AccessReport(
            run="r", usage=(ClientUsage(client="ada", period="2030-01", tokens=1, budget=2),)
        ),
    )  # fmt: skip
    first = FirstAgentReport.model_validate_json(report.to_json())
    assert (first.versions[0].state, first.counters[0].requests) == (LoadState.ACTIVE, 5)
    read = AgentReport.model_validate_json(first.to_json())
    assert (read.features, read.applied_digest, read.counters[0].abandoned) == ((), "", 0)
    assert read.access is None and AgentReport.model_validate_json(report.to_json()) == report


@pytest.mark.parametrize("features", [(), (PREVIOUS,), FEATURES])
def test_operator_and_agent_compute_the_same_digest(features: tuple[str, ...]) -> None:
    sent = FULL.for_features(features)
    assert DesiredState.model_validate_json(sent.to_json()).digest() == sent.digest()


def test_the_digest_tells_states_of_one_generation_apart() -> None:
    other = FULL.model_copy(update={"aliases": FULL.aliases[1:]})
    assert other.generation == FULL.generation and other.digest() != FULL.digest()


def test_any_generation_of_a_later_term_is_higher() -> None:
    assert first_generation(0) == 0
    assert first_generation(4) > first_generation(3) + 4_000_000_000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("appliedGeneration", -1),
        ("appliedGeneration", 2**63),
        ("bootId", "x" * 65),
        ("counters", [{"alias": "a", "digest": ONE.digest, "requests": -1}]),
        ("counters", [{"alias": "a", "digest": ONE.digest, "requests": 10**400}]),
        ("counters", [{"alias": "a", "digest": ONE.digest, "requestsSquared": float("nan")}]),
    ],
)
def test_a_report_with_absurd_numbers_is_refused(field: str, value: Any) -> None:
    document = {"podName": "p", "podUid": "u", "bootId": "b", "engineReady": True, "appliedGeneration": 1}
    AgentReport.model_validate_json(json.dumps(document))
    with pytest.raises(ValidationError):
        AgentReport.model_validate_json(json.dumps(document | {field: value}))
