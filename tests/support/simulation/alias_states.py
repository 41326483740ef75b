"""Records, pods and contexts of a single alias, for tests of its rollout."""

from datetime import UTC, datetime, timedelta
from typing import Any

from simulation.serving_world import build_adapter, digest_of

from tunesmith.api.adapterdeployment import Adapter
from tunesmith.decide.serving.admission.targets import TargetVersion
from tunesmith.decide.serving.evidence import Arm, Counts, Evidence, RunCounts
from tunesmith.decide.serving.pods.fleet import Agent, Fleet, build_fleet
from tunesmith.decide.serving.records.record import AliasRecord, Rejection, RolloutCandidate, Watch
from tunesmith.decide.serving.rollout.transition import AliasContext
from tunesmith_contract.agent import (
    FEATURES,
    UNPROVEN,
    AgentReport,
    LoadedVersion,
    LoadState,
    Version,
    VersionCounters,
)
from tunesmith_contract.shared_rules.verdict import Verdict

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ALIAS = "expenses"
#: The agent of the first pod, which has answered no requests.
KNOWN_RUNS = {"boot-0": RunCounts(pod_uid="uid-0")}


def ago(seconds: float) -> datetime:
    """The time so many seconds before now."""
    return NOW - timedelta(seconds=seconds)


def version(word: str, number: int = 1, uri: str = "") -> Version:
    """A version whose digest is that of the word."""
    return Version(version=number, digest=digest_of(word), uri=uri or f"pvc://artifacts/{word}")


def target(word: str, number: int = 2, uri: str = "", **fields: Any) -> TargetVersion:
    """An admitted and reachable target, unless fields say otherwise."""
    admitted: dict[str, Any] = {"version": version(word, number, uri), "reachable": True, "admitted": True}
    return TargetVersion(**(admitted | fields))


def counts(requests: int, errors: int = 0, **ends: int) -> Counts:
    """Requests, each with a key of its own."""
    failures = errors + ends.get("abandoned", 0)
    sums = {"keys": requests, "requests_squared": requests}
    return Counts(
        requests=requests,
        errors=errors,
        failures_squared=failures,
        requests_failures=failures,
        **(sums | ends),
    )


def arm(requests: int, errors: int = 0, **ends: int) -> Arm:
    """Requests of a version in a step, of which no agent knows."""
    return Arm(total=counts(requests, errors, **ends), sources=1)


def candidate(
    word: str, weight: int = 0, age: float = 0, requests: int = 0, errors: int = 0, **fields: Any
) -> RolloutCandidate:
    """A candidate whose step began ``age`` seconds ago, with requests counted by its latest check just now."""
    evidence = Evidence(candidate=arm(requests, errors))
    defaults: dict[str, Any] = {
        "began": ago(age),
        "step_seconds": age,
        "evidence": evidence,
        "seen": evidence.candidate.total,
        "verdict": Verdict.PASS,
        "is_last": True,
        "most_active": 9,
    }
    return RolloutCandidate(version=version(word, 2), weight=weight, **(defaults | fields))


def rejection(word: str, seconds: float = 60, number: int = 9) -> Rejection:
    """A rollback of this version so many seconds ago."""
    return Rejection(
        version=version(word, number), reason="ErrorRateTooHigh", message="bad", time=ago(seconds)
    )


def record(
    stable: str = "",
    rolling: RolloutCandidate | None = None,
    rejected: str = "",
    number: int = 1,
    previous: str = "",
    **fields: Any,
) -> AliasRecord:
    """The record of the alias; a previous version makes that its rollback window is open."""
    defaults: dict[str, Any] = {
        "name": ALIAS,
        "written": NOW,
        "stable": version(stable, number) if stable else None,
        "promoted": ago(3600) if stable else None,
        "candidate": rolling,
        "rejections": (rejection(rejected),) if rejected else (),
        "watch": Watch(
            previous=version(previous, 7) if previous else None,
            evidence=Evidence(candidate=Arm(runs=KNOWN_RUNS)),
        ),
    }
    return AliasRecord(**(defaults | fields))


def fleet(
    active: tuple[str, ...] = (),
    loading: tuple[str, ...] = (),
    failed: dict[str, tuple[str, str]] | None = None,
    unproven: tuple[str, ...] = (),
    counters: dict[str, tuple[int, int]] | None = None,
    pods: int = 1,
    ready: bool = True,
    connected: bool = True,
    permanent: bool = False,
    tripped: tuple[str, ...] = (),
) -> Fleet:
    """Pods on each of which the same versions are active, loading or failed (with reason and message).

    Of the active versions some may be unproven, or get no more requests because their breaker is open.
    """
    states = [
        (word, LoadState.ACTIVE, *((UNPROVEN, "its effect is small") if word in unproven else ("", "")))
        for word in active
    ]
    states += [(word, LoadState.LOADING, "", "") for word in loading]
    states += [(word, LoadState.FAILED, *cause) for word, cause in (failed or {}).items()]
    bodies, agents = [], []
    for index in range(pods):
        condition = {"type": "Ready", "status": "True" if ready else "False"}
        metadata = {"name": f"pod-{index}", "uid": f"uid-{index}"}
        bodies.append({"metadata": metadata, "status": {"conditions": [condition]}})
        report = AgentReport(
            pod_name=f"pod-{index}",
            pod_uid=f"uid-{index}",
            boot_id=f"boot-{index}",
            engine_ready=True,
            applied_generation=1,
            features=FEATURES,
            versions=tuple(
                LoadedVersion(
                    alias=ALIAS,
                    digest=digest_of(word),
                    state=state,
                    reason=reason,
                    message=message,
                    breaker_open=word in tripped,
                    permanent=permanent and state is LoadState.FAILED,
                )
                for word, state, reason, message in states
            ),
            counters=tuple(
                VersionCounters(alias=ALIAS, digest=digest_of(word), requests=requests, errors=errors)
                for word, (requests, errors) in (counters or {}).items()
            ),
        )
        agents.append(Agent(report, connected))
    return build_fleet(bodies, agents)


def context(wanted: TargetVersion | None = None, pods: Fleet | None = None, **adapter: Any) -> AliasContext:
    """Inputs of a rollout with steps 5 % for 1 minute, 25 % for 2 minutes, and 100 %."""
    spec = Adapter.model_validate(build_adapter("unused", name=ALIAS, **adapter))
    return AliasContext(spec, wanted or TargetVersion(), pods or fleet(), NOW)
