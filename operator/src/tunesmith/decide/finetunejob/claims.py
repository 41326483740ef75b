"""Check of PersistentVolumeClaims that pods on several nodes have to share."""

from collections.abc import Iterable, Mapping

from tunesmith.api.finetunejob import FineTuneJob, FineTuneJobSpec
from tunesmith.api.reasons import RunReason
from tunesmith.decide.claims import SharedClaim
from tunesmith.decide.run.claims import CACHE_FIELD, cache_uri
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.report import Failure
from tunesmith_contract.uris import Scheme, parse_uri_or_none


def model_fields(spec: FineTuneJobSpec) -> dict[str, str | None]:
    """URIs of the models that training reads beside the base model, by the field that names each."""
    teacher = spec.method.distillation.teacher if spec.method.distillation else None
    fields: dict[str, str | None] = {"spec.method.distillation.teacher.uri": teacher.uri if teacher else None}
    for reward in spec.method.rewards:
        field = f"spec.method.{spec.method.key}.rewards[{reward.name}].model.uri"
        fields[field] = reward.model.uri if reward.model else None
    return fields


def shared_claims(job: FineTuneJob) -> dict[str, str]:
    """Claims that all training pods mount, with the field that names each; those written to come first."""
    spec = job.spec
    if spec.compute.nodes == 1:
        return {}
    fields = {
        "spec.output.uri": spec.output.uri,
        "spec.workspace.uri": spec.workspace.uri if spec.workspace else None,
        CACHE_FIELD: cache_uri(job.spec.compute.cache_volume),
        "spec.baseModel.uri": spec.base_model.uri,
        **model_fields(spec),
    }
    claims: dict[str, str] = {}
    for field, uri in fields.items():
        parsed = parse_uri_or_none(uri) if uri else None
        if parsed is not None and parsed.scheme is Scheme.PVC:
            claims.setdefault(parsed.name, field)
    return claims


def find_unshared_claim(job: FineTuneJob, claims: Mapping[str, Iterable[str]]) -> Failure | None:
    """Failure for a claim that only one node at a time can mount; None where all can be shared.

    Args:
        claims: access modes of the claims that exist; pods report a missing one themselves.
    """
    written = {"spec.output.uri", "spec.workspace.uri", CACHE_FIELD}
    for name, field in shared_claims(job).items():
        if name not in claims:
            continue
        claim = SharedClaim(name, tuple(claims[name]), field in written)
        if claim.reaches_nodes:
            continue
        instead = "claim" if field == CACHE_FIELD else "claim or a bucket"
        message = (
            f"{claim.describe()}: pods on {job.spec.compute.nodes} nodes can't all mount it. "
            f"Name a ReadWriteMany {instead} in {field}, or write compute.nodes: 1."
        )
        return Failure(
            category=FailureCategory.USER_ERROR, reason=RunReason.CLAIM_NOT_SHARED, message=message
        )
    return None
