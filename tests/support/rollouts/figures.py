"""How fast releases and their way back were, and how requests ended."""

from collections.abc import Iterable, Sequence
from typing import Any

from rollouts.clients import End
from rollouts.record_history import needless_flips, shares, wrong_answers
from rollouts.rollout_world import Release, RolloutWorld


def proof_seconds(world: RolloutWorld, release: Release) -> float | None:
    """From naming the artifact until so many agents as there are pods have proven it; None if they never had."""
    digest = release.version.digest
    first = {
        pod.uid: next(
            (
                at
                for at, message, fields in pod.events
                if message == "version is Active" and fields["digest"] == digest
            ),
            float("inf"),
        )
        for pod in world.pods.all
    }
    times = sorted(at for at in first.values() if at < float("inf"))
    replicas = world.shape.replicas
    return times[replicas - 1] - release.named if len(times) >= replicas else None


def rollback_seconds(world: RolloutWorld, release: Release) -> float | None:
    """From the decision until the last request began that the version answered; 0 if none did, None without one."""
    if release.decided is None:
        return None
    began = [reply.began for reply in world.load.replies if reply.version == release.name]
    return max(0.0, max(began, default=0.0) - release.decided)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not exceeded by this share of the values."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def milliseconds(values: Iterable[float | None]) -> dict[str, float]:
    """Number, median, 99th percentile and maximum of those that are known."""
    known = [1000 * value for value in values if value is not None]
    if not known:
        return {"count": 0}
    return {
        "count": len(known),
        "p50": round(quantile(known, 0.5), 1),
        "p99": round(quantile(known, 0.99), 1),
        "max": round(max(known), 1),
    }


def describe(world: RolloutWorld) -> dict[str, Any]:
    """Figures of a run."""
    replies, history, pods = world.load.replies, world.history, world.pods.all
    answered = [reply.ended - reply.began for reply in replies if reply.end is End.ANSWERED]
    deviations = [abs(share.deviations) for share in shares(replies, history, pods, world.marks)]
    return {
        "requests": {end.value: sum(reply.end is end for reply in replies) for end in End},
        "connectionsRefused": world.load.refused,
        "wrongAnswers": len(wrong_answers(replies, history, pods, world.marks, world.model_changes)),
        "needlessFlips": len(needless_flips(replies, world.rejected, world.model_changes)),
        "steps": len(deviations),
        "largestDeviation": round(max(deviations, default=0.0), 1),
        "promoted": len(world.releases) - len(world.rejected),
        "rolledBack": len(world.rejected),
        "engineSwitches": world.engine_switches,
        "baseModelChanges": len(world.model_changes),
        "twoBaseModelsSeconds": [round(each.gone - each.switched, 1) for each in world.model_changes],
        "agentsKilled": sum(len(pod.killed) for pod in pods),
        "pods": len(pods),
        "operatorStarts": world.operator.starts,
        "answerMilliseconds": milliseconds(answered),
        "namedToProvenMilliseconds": milliseconds(proof_seconds(world, each) for each in world.releases),
        "decidedToLastAnswerMilliseconds": milliseconds(
            rollback_seconds(world, each) for each in world.releases
        ),
    }
