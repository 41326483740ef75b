"""What a FineTuneJob starts from, taken down at first sight so that no later change reaches it."""

from collections.abc import Mapping
from datetime import datetime

from tunesmith.api.finetunejob import FineTuneJob, FineTuneJobSpec
from tunesmith.api.sources import Validation
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.inputs_config_map import Inputs
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.layout import SecretRole
from tunesmith_contract.report import Failure
from tunesmith_contract.run_config import NEAR_THRESHOLD, HeldOut, Owner, PrepareConfig, ValidationSource
from tunesmith_contract.uris import InvalidUri, Scheme, parse_uri

from .generation import generated_rows, generation_fields, resolve_generation
from .referenced_jobs import NotReady, find_earlier
from .run_config import EarlierArtifact, resolve_base, resolve_method
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
        generate=resolve_generation(job, base_model),
    )


def _prepare_config(
    job: FineTuneJob, base_model: str, artifacts: Mapping[str, EarlierArtifact]
) -> PrepareConfig:
    spec, meta = job.spec, job.metadata
    data = spec.dataset
    return PrepareConfig(
        owner=Owner(kind="FineTuneJob", namespace=meta.namespace, name=meta.name, uid=meta.uid),
        base_model=base_model,
        train=data.train.locations if data.train else (),
        argilla=data.train.argilla.to_contract() if data.train and data.train.argilla else None,
        generated=generated_rows(job),
        validation=_validation(data.validation),
        held_out=_held_out(spec),
        format=data.format,
        on_invalid_row=data.on_invalid_row,
        max_invalid_fraction=float(data.max_invalid_fraction or 0),
        deduplicate=data.deduplicate,
        near_threshold=float(data.near_threshold or NEAR_THRESHOLD),
        personal_data=data.personal_data,
        method=resolve_method(spec, artifacts),
        formats=spec.output.formats,
        seed=spec.hyperparameters.seed,
        workspace=spec.workspace.uri if spec.workspace else None,
        output=spec.output.uri,
    )


def _validation(written: Validation) -> ValidationSource:
    return ValidationSource(
        fraction=float(written.fraction or 0),
        uri=written.uri,
        group_field=written.group_field,
        stratify_field=written.stratify_field,
    )


def _held_out(spec: FineTuneJobSpec) -> tuple[HeldOut, ...]:
    """What training is kept free of: all that the job's own evaluation asks."""
    suites = spec.evaluation.suites if spec.evaluation else ()
    return tuple(HeldOut(name=suite.name, uri=suite.dataset.uri) for suite in suites)


def data_fields(spec: FineTuneJobSpec) -> dict[str, str]:
    """The rows that people name: URIs by the field that names each."""
    data, suites = spec.dataset, spec.evaluation.suites if spec.evaluation else ()
    written = data.train.fields if data.train else {}
    train = {f"spec.dataset.train.{member}": uri for member, uri in written.items()}
    own = {"spec.dataset.validation.uri": data.validation.uri} if data.validation.uri else {}
    held_out = {f"spec.evaluation.suites[{suite.name}].dataset.uri": suite.dataset.uri for suite in suites}
    return train | generation_fields(spec) | own | held_out


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
    source = inputs.generate.generation.source if inputs.generate else None
    held_out = (each.uri for each in config.held_out)
    rows = (*config.train, config.validation.uri, source, *held_out)
    try:
        for uri in (config.base_model, *rows, config.workspace, config.output):
            if uri:
                parse_uri(uri)
    except InvalidUri as error:
        return Failure(category=FailureCategory.USER_ERROR, reason="InvalidUri", message=str(error))
    return None
