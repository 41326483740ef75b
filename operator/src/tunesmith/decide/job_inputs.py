"""What a FineTuneJob starts from, taken down at first sight so that no later change reaches it."""

from collections.abc import Mapping
from datetime import datetime

from tunesmith.api.finetunejob import FineTuneJob, FineTuneJobSpec
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.inputs_config_map import Inputs
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.layout import SecretRole
from tunesmith_contract.report import Failure
from tunesmith_contract.run_config import Owner, PrepareConfig, ValidationSource
from tunesmith_contract.uris import InvalidUri, Scheme, parse_uri

from .earlier import NotReady, find_earlier
from .recipe import EarlierArtifact, resolve_base, resolve_method
from .secrets import resolve_secrets


def take_inputs(
    job: FineTuneJob, earlier: Mapping[str, FineTuneJob | None], now: datetime, environment: Environment
) -> Inputs | NotReady | Failure:
    """The snapshot; or why there is none yet, or will be none.

    Args:
        earlier: the FineTuneJobs that the job names.
    """
    artifacts = find_earlier(job, earlier, now)
    if not isinstance(artifacts, dict):
        return artifacts
    spec, secrets = job.spec, resolve_secrets(job.spec, earlier)
    base_model, initial = resolve_base(spec, artifacts)
    return Inputs(
        spec=spec.model_dump_json(by_alias=True, exclude_none=True),
        image=spec.compute.image or environment.trainer_image,
        started=now,
        config=_prepare_config(job, base_model, artifacts),
        ca_bundle=environment.ca_bundle,
        token_secret=secrets.get(SecretRole.BASE_MODEL, "")
        if base_model.startswith(f"{Scheme.HF}://")
        else "",
        secrets=secrets,
        initial=initial,
    )


def _prepare_config(
    job: FineTuneJob, base_model: str, artifacts: Mapping[str, EarlierArtifact]
) -> PrepareConfig:
    spec, meta = job.spec, job.metadata
    data = spec.dataset
    return PrepareConfig(
        owner=Owner(kind="FineTuneJob", namespace=meta.namespace, name=meta.name, uid=meta.uid),
        base_model=base_model,
        train=(data.train.uri,) if data.train.uri else (),
        argilla=data.train.argilla.to_contract() if data.train.argilla else None,
        validation=ValidationSource(fraction=float(data.validation.fraction or 0), uri=data.validation.uri),
        format=data.format,
        on_invalid_row=data.on_invalid_row,
        max_invalid_fraction=float(data.max_invalid_fraction or 0),
        deduplicate=data.deduplicate,
        method=resolve_method(spec, artifacts),
        formats=spec.output.formats,
        seed=spec.hyperparameters.seed,
        workspace=spec.workspace.uri if spec.workspace else None,
        output=spec.output.uri,
    )


def with_snapshot(job: FineTuneJob, inputs: Inputs) -> FineTuneJob:
    """The job as it was at first sight, but for what may change later."""
    spec = FineTuneJobSpec.model_validate_json(inputs.spec)
    live = job.spec
    changes = {
        "suspend": live.suspend,
        "active_deadline_seconds": live.active_deadline_seconds,
        "ttl_seconds_after_finished": live.ttl_seconds_after_finished,
    }
    return job.model_copy(update={"spec": spec.model_copy(update=changes)})


def invalid_uri(inputs: Inputs) -> Failure | None:
    """An address that names no storage."""
    config = inputs.config
    assert isinstance(config, PrepareConfig)
    try:
        for uri in (config.base_model, *config.train, config.validation.uri, config.workspace, config.output):
            if uri:
                parse_uri(uri)
    except InvalidUri as error:
        return Failure(category=FailureCategory.USER_ERROR, reason="InvalidUri", message=str(error))
    return None
