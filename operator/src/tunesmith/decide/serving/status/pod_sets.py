"""Status of the sets of serving pods: which one answers, how far the next one is, and why it waits."""

from dataclasses import dataclass
from datetime import datetime

from tunesmith.api.adapterdeployment import MAX_SETS, AdapterDeployment, PodSetRole, PodSetStatus
from tunesmith.api.reasons import AdapterDeploymentReason as Reason
from tunesmith.decide.objects import condition_of
from tunesmith.decide.serving.pods.claims import ClaimLimits
from tunesmith.decide.serving.pods.fleet import ServingPod
from tunesmith.decide.serving.pods.pod_problem import find_pod_problem, find_refusal
from tunesmith.decide.serving.pods.pod_sets import PodSet, PodSets
from tunesmith.decide.serving.pods.switching import Demand, SetPlan, complete_pods
from tunesmith.manifests.serving_deployment import base_model_uri, serving_image
from tunesmith.manifests.serving_service import serving_service_name
from tunesmith_contract.agent import OTHER, LoadedVersion, LoadState, Version

MAX_MESSAGE = 512

#: Reasons for which an alias gets no version for another base model until a person changes something.
_FINAL_REASONS = frozenset(
    {
        Reason.SOURCE_UNREACHABLE,
        Reason.SOURCE_FAILED,
        Reason.DIGEST_REJECTED,
        Reason.INCOMPATIBLE,
        Reason.SERVICE_NAME_TAKEN,
    }
)


@dataclass(frozen=True, slots=True)
class SwitchWait:
    """Cause for which the next set does not answer yet.

    Attributes:
        ready: number of its pods that could answer.
        needed: number of pods that it has to have.
        is_stalled: time alone will not help.
    """

    reason: str
    message: str
    ready: int
    needed: int
    is_stalled: bool = False


def service_name_taken(deployment: AdapterDeployment) -> tuple[str, str]:
    """Reason and message where the Service with the name of the resource belongs to another owner."""
    name = serving_service_name(deployment)
    message = f"Service {name} belongs to another owner: delete it, or give this resource another name"
    return Reason.SERVICE_NAME_TAKEN, message


def explain_wait(
    deployment: AdapterDeployment,
    sets: PodSets,
    plan: SetPlan,
    demand: Demand,
    claims: ClaimLimits,
    now: datetime,
) -> SwitchWait | None:
    """Cause for which the wanted set does not answer; None if it does, or will at once."""
    target = plan.target
    if sets.serving is None or target is sets.serving or (target and target.number == plan.number):
        return None
    if demand.blocked is not None:
        reason, message = demand.blocked
        return SwitchWait(reason, message, 0, deployment.spec.replicas, reason in _FINAL_REASONS)
    if target is None:
        return None
    complete = len(complete_pods(target, sets.serving.fleet, demand.at(target, now)))
    replicas = deployment.spec.replicas
    changes_model = target.model != sets.serving.model
    reason, cause, is_final = _find_cause(deployment, target, demand, claims, changes_model)
    message = (
        f"{complete} of {replicas} pods of {target.name} are ready with all adapters{cause}. "
        f"{sets.serving.name} answers meanwhile"
    )
    late = condition_of(target.deployment, "Progressing", "False") is not None
    if late and not is_final:
        reason, message = Reason.PROGRESS_DEADLINE_EXCEEDED, f"no progress in time: {message}"
    return SwitchWait(reason, message, complete, replicas, is_final or late)


def _find_cause(
    deployment: AdapterDeployment, target: PodSet, demand: Demand, claims: ClaimLimits, changes_model: bool
) -> tuple[Reason, str, bool]:
    """Reason, the end of a sentence about it, and True if time alone will not help."""
    if (refusal := find_refusal(target.deployment)) is not None:
        return Reason.UNAVAILABLE, f": {refusal}", False
    for pod in target.fleet.pods:
        if problem := find_pod_problem(pod.body):
            is_unschedulable = problem.reason is Reason.UNSCHEDULABLE
            if is_unschedulable and claims.one_pod:
                cause = (
                    f": pod {pod.name} can't start beside the others ({problem.message}). {claims.message}"
                )
                return Reason.CLAIM_NOT_SHARED, cause, True
            if is_unschedulable and deployment.spec.engine.gpus:
                cause = _describe_gpus(deployment, pod, problem.message, changes_model)
                return Reason.WAITING_FOR_GPU, cause, False
            return problem.reason, f": pod {pod.name}: {problem.message}", False
    lacking = [
        pod.name
        for pod in target.fleet.outdated
        if pod.agent is not None and OTHER not in pod.agent.report.features
    ]
    if changes_model and lacking:
        image = serving_image(target.deployment)
        cause = f": the agent in {image} (pod {lacking[0]}) is of a release that can't change the base model"
        return Reason.AGENTS_OUTDATED, f"{cause}. Write a newer engine.image", True
    if failed := _find_failure(target, demand):
        alias, version, pod, loaded = failed
        cause = f": {alias}: version {version.version} on pod {pod.name}: {loaded.reason}: {loaded.message}"
        return (Reason.INCOMPATIBLE if loaded.permanent else Reason.LOAD_FAILED), cause, loaded.permanent
    return Reason.WARMING_UP, "", False


def _describe_gpus(deployment: AdapterDeployment, pod: ServingPod, cause: str, changes_model: bool) -> str:
    gpus, replicas = deployment.spec.engine.gpus, deployment.spec.replicas
    # Pods on two base models can't replace one another one by one.
    instead = (
        "lower replicas"
        if changes_model
        else "write engine.updateStrategy: StopFirst to replace the pods one after the other"
    )
    return (
        f": a second set of pods needs as many free GPUs again, {replicas * gpus} in all, and pod {pod.name} finds "
        f"none ({cause}). Free GPUs, or {instead}"
    )


def _find_failure(target: PodSet, demand: Demand) -> tuple[str, Version, ServingPod, LoadedVersion] | None:
    """A version that a pod can't load; one that no pod will ever load comes first."""
    failures = [
        (alias, version, pod, loaded)
        for alias, version in demand.versions
        for pod in target.fleet.pods
        if (loaded := pod.version(alias, version.digest)) is not None and loaded.state is LoadState.FAILED
    ]
    return min(failures, key=lambda failure: not failure[3].permanent, default=None)


def build_set_status(sets: PodSets, plan: SetPlan, wait: SwitchWait | None) -> tuple[PodSetStatus, ...]:
    """State of each set, ordered by number; after a switch that this pass makes, as it is then."""
    return tuple(
        PodSetStatus(
            number=each.number,
            deployment=each.name,
            role=_role(each, plan),
            base_model=base_model_uri(each.deployment)[:MAX_MESSAGE] or None,
            image=serving_image(each.deployment)[:MAX_MESSAGE],
            replicas=len(each.fleet.pods),
            ready_replicas=len(each.fleet.ready),
            message=wait.message[:MAX_MESSAGE] if wait and each is plan.target else None,
        )
        for each in sorted(sets.all, key=lambda each: each.number)[:MAX_SETS]
    )


def _role(each: PodSet, plan: SetPlan) -> PodSetRole:
    if each.number == plan.number:
        return PodSetRole.SERVING
    return PodSetRole.NEXT if plan.target is not None and each is plan.target else PodSetRole.FORMER
