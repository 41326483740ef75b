"""PersistentVolumeClaims that all serving pods mount, and what their access modes mean for placement and updates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunesmith.api.adapterdeployment import AdapterDeployment, AdapterDeploymentSpec
from tunesmith.api.reasons import AdapterDeploymentReason as Reason
from tunesmith.api.reasons import ConditionType
from tunesmith.decide.claims import SharedClaim
from tunesmith.decide.conditions import ConditionUpdate
from tunesmith.manifests.objects import Body
from tunesmith_contract.uris import Scheme, parse_uri

from .fleet import is_rolled_out


@dataclass(frozen=True, slots=True)
class ClaimLimits:
    """Limits that the access modes of claims put on the pods.

    Attributes:
        on_one_node: all pods have to run on one node.
        one_pod: a second pod can't start while the first one runs.
        message: the claim, its access modes and what to write instead; empty where nothing limits the pods.
    """

    on_one_node: bool = False
    one_pod: bool = False
    message: str = ""


def mounted_claims(spec: AdapterDeploymentSpec) -> dict[str, bool]:
    """Names of the claims that pods mount; True for one that they write to."""
    claims = {volume.claim: False for volume in spec.artifact_volumes}
    model = parse_uri(spec.base_model.uri)
    if model.scheme is Scheme.PVC:
        claims[model.name] = False
    volumes = (spec.engine.template.volumes if spec.engine.template else None) or ()
    for own in (volume.persistent_volume_claim for volume in volumes):
        if own:
            claims[own.claim_name] = claims.get(own.claim_name, False) or not own.read_only
    if spec.engine.cache_volume:
        claims[spec.engine.cache_volume.claim_name] = True
    return claims


def asks_for_claims(deployment: AdapterDeployment, observed: Sequence[Body]) -> bool:
    """True while the access modes matter: the spec has changed, or not all pods are there.

    Args:
        observed: the Deployments of the pods.
    """
    is_changed = deployment.status.observed_generation < deployment.metadata.generation
    return bool(mounted_claims(deployment.spec)) and (
        is_changed or not observed or not all(map(is_rolled_out, observed))
    )


def judge_claims(deployment: AdapterDeployment, modes: Mapping[str, tuple[str, ...]] | None) -> ClaimLimits:
    """Limits by the claims.

    Args:
        modes: access modes of the claims that exist; None if they were not read, so that the last verdict holds.
    """
    if modes is None:
        return _last_limits(deployment)
    mounted = mounted_claims(deployment.spec)
    claims = [SharedClaim(name, modes[name], mounted[name]) for name in mounted if name in modes]
    # One that serves a single pod comes first.
    bound = sorted(
        (claim for claim in claims if not claim.reaches_nodes), key=lambda claim: claim.reaches_pods
    )
    if not bound:
        return ClaimLimits()
    first = bound[0]
    instead = (
        "ReadWriteMany claim" if first.is_written else "ReadWriteMany or ReadOnlyMany claim, or a bucket"
    )
    effect = (
        "all pods run on one node"
        if first.reaches_pods
        else "one pod at a time can mount it, so write replicas: 1"
    )
    message = f"{first.describe()}: {effect}. For pods on several nodes name a {instead}"
    return ClaimLimits(True, not first.reaches_pods, message)


def _last_limits(deployment: AdapterDeployment) -> ClaimLimits:
    """Limits that the last status told; a lost status has them read again."""
    for condition in deployment.status.conditions:
        if condition.type == ConditionType.VOLUMES_SHARED and condition.status == "False":
            return ClaimLimits(True, condition.reason == Reason.CLAIM_NOT_SHARED, condition.message)
    return ClaimLimits()


def stops_first(deployment: AdapterDeployment, limits: ClaimLimits) -> bool:
    """True if a new pod may never start beside the old one, because of the claim or for lack of GPUs on its node."""
    return limits.one_pod or (limits.on_one_node and deployment.spec.engine.gpus > 0)


def claims_condition(limits: ClaimLimits) -> ConditionUpdate:
    """The condition VolumesShared."""
    if not limits.message:
        return ConditionUpdate(ConditionType.VOLUMES_SHARED.value, "True", Reason.VOLUMES_SHARED)
    reason = Reason.CLAIM_NOT_SHARED if limits.one_pod else Reason.CLAIM_ON_ONE_NODE
    return ConditionUpdate(ConditionType.VOLUMES_SHARED.value, "False", reason, limits.message)
