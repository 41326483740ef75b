"""Records, pods and contexts of a single alias, for tests of its rollout."""

from datetime import UTC, datetime, timedelta
from typing import Any

from simulation.serving_world import build_adapter, digest_of

from tunesmith.api.adapterdeployment import Adapter
from tunesmith.decide.serving.fleet import Agent, Fleet, build_fleet
from tunesmith.decide.serving.record import AliasRecord, Counts, Rejection, RolloutCandidate, Tally
from tunesmith.decide.serving.rollout import AliasContext
from tunesmith.decide.serving.targets import TargetVersion
from tunesmith_contract.agent import UNPROVEN, AgentReport, LoadedVersion, LoadState, Version, VersionCounters

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ALIAS = "expenses"


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


def candidate(
    word: str, weight: int = 0, age: float = 0, requests: int = 0, errors: int = 0, **fields: Any
) -> RolloutCandidate:
    """A candidate whose step began ``age`` seconds ago, with requests counted by its latest check just now."""
    counts: dict[str, Any] = {"tally": Tally(finished=Counts(requests=requests, errors=errors))}
    times: dict[str, Any] = {"began": ago(age), "last_check": NOW}
    return RolloutCandidate(version=version(word, 2), weight=weight, **(counts | times | fields))


def record(
    stable: str = "", rolling: RolloutCandidate | None = None, rejected: str = "", number: int = 1
) -> AliasRecord:
    """The record of the alias."""
    rejection = None
    if rejected:
        rejection = Rejection(
            version=version(rejected, 9), reason="ErrorRateTooHigh", message="bad", time=ago(60)
        )
    return AliasRecord(
        name=ALIAS,
        stable=version(stable, number) if stable else None,
        promoted=ago(3600) if stable else None,
        candidate=rolling,
        rejection=rejection,
    )


def fleet(
    active: tuple[str, ...] = (),
    loading: tuple[str, ...] = (),
    failed: dict[str, tuple[str, str]] | None = None,
    unproven: tuple[str, ...] = (),
    counters: dict[str, tuple[int, int]] | None = None,
    pods: int = 1,
    ready: bool = True,
) -> Fleet:
    """Pods on each of which the same versions are active, loading or failed (with reason and message).

    Of the active versions some may be unproven.
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
            versions=tuple(
                LoadedVersion(
                    alias=ALIAS, digest=digest_of(word), state=state, reason=reason, message=message
                )
                for word, state, reason, message in states
            ),
            counters=tuple(
                VersionCounters(alias=ALIAS, digest=digest_of(word), requests=requests, errors=errors)
                for word, (requests, errors) in (counters or {}).items()
            ),
        )
        agents.append(Agent(report, True))
    return build_fleet(bodies, agents)


def context(wanted: TargetVersion | None = None, pods: Fleet | None = None, **adapter: Any) -> AliasContext:
    """Inputs of a rollout with steps 5 % for 1 minute, 25 % for 2 minutes, and 100 %."""
    spec = Adapter.model_validate(build_adapter("unused", name=ALIAS, **adapter))
    return AliasContext(spec, wanted or TargetVersion(), pods or fleet(), NOW)
