"""PersistentVolumeClaims that the pods of one evaluation share."""

from collections.abc import Mapping, Sequence

from tunesmith.api.evalrun import EvalRunSpec
from tunesmith.api.reasons import RunReason
from tunesmith.decide.claims import SharedClaim
from tunesmith.decide.run.claims import TEMPLATE_FIELD, cache_uri, claim_names, volume_fields
from tunesmith.decide.run.references import References
from tunesmith.manifests.stage_jobs import evaluation_uris
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.report import Failure
from tunesmith_contract.run_config import EvaluateConfig
from tunesmith_contract.uris import parse_uri


def shared_claim_names(spec: EvalRunSpec, config: EvaluateConfig) -> tuple[str, ...]:
    """Names of the claims that several pods mount, those that they write to first; empty for one pod."""
    if config.shards == 1:
        return ()
    volumes = map(parse_uri, volume_fields(spec.compute.template, TEMPLATE_FIELD).values())
    read = claim_names((*evaluation_uris(config), *volumes))
    return tuple(dict.fromkeys((*_written(spec, config), *read)))


def read_shared_claims(
    spec: EvalRunSpec, config: EvaluateConfig, modes: Mapping[str, Sequence[str]]
) -> tuple[SharedClaim, ...]:
    """The claims that several pods mount; without those that do not exist, which pods report themselves.

    Args:
        modes: access modes of the claims that exist.
    """
    written = _written(spec, config)
    return tuple(
        SharedClaim(name, tuple(modes[name]), name in written)
        for name in shared_claim_names(spec, config)
        if name in modes
    )


def find_unshared_claim(
    claims: Sequence[SharedClaim], config: EvaluateConfig, references: References
) -> Failure | None:
    """Failure for a claim that only one pod at a time can mount."""
    claim = next((claim for claim in claims if not claim.reaches_pods), None)
    if claim is None:
        return None
    message = (
        f"{claim.describe()}: {config.shards} pods can't all mount it. Name a ReadWriteMany claim or a bucket in "
        f"{references.field_of('pvc', claim.name)}, or write parallelism: 1."
    )
    return Failure(category=FailureCategory.USER_ERROR, reason=RunReason.CLAIM_NOT_SHARED, message=message)


def claim_of_one_node(claims: Sequence[SharedClaim]) -> str:
    """Name of a claim that only pods on one node can share; empty if there is none."""
    return next((claim.name for claim in claims if not claim.reaches_nodes), "")


def _written(spec: EvalRunSpec, config: EvaluateConfig) -> tuple[str, ...]:
    volumes = volume_fields(spec.compute.template, TEMPLATE_FIELD, written=True)
    uris = (config.output, config.workspace, cache_uri(spec.compute.cache_volume), *volumes.values())
    return claim_names(parse_uri(uri) for uri in uris if uri)
