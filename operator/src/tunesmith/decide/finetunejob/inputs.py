"""Inputs of a FineTuneJob, taken once so that no later change reaches it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tunesmith.api.finetunejob import FineTuneJob, FineTuneJobSpec
from tunesmith.api.template_arguments import read_switches
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.run_snapshots import Inputs
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.labels import ArgillaSource
from tunesmith_contract.layout import SecretRole
from tunesmith_contract.methods import Method
from tunesmith_contract.report import Failure
from tunesmith_contract.run_config import Owner, PrepareConfig, ValidationSource
from tunesmith_contract.sources import ArtifactSource
from tunesmith_contract.uris import InvalidUri, Scheme, parse_uri

from .generation import generated_rows, generation_fields, resolve_generation, suite_rows
from .method import plain_data, resolve_method
from .referenced_jobs import NotReady, find_artifacts, resolve_base
from .secrets import resolve_secrets

#: Fields of the spec that may change later; the snapshot leaves them out.
CHANGEABLE = frozenset({"suspend", "active_deadline_seconds", "ttl_seconds_after_finished"})
#: Members of the data set that say where rows come from; the others are settings of prepare.
_SOURCES = frozenset({"train", "generate", "validation", "templateArguments", "compute"})


def build_inputs(
    job: FineTuneJob, earlier: Mapping[str, FineTuneJob | None], now: datetime, environment: Environment
) -> Inputs | NotReady | Failure:
    """The inputs, or why there are none yet, or the failure that prevents them.

    Args:
        earlier: the FineTuneJobs that the job names.
    """
    artifacts = find_artifacts(job, earlier, now)
    if not isinstance(artifacts, dict):
        return artifacts
    base_model, initial = resolve_base(job.spec, artifacts)
    return Sources(base_model, initial, resolve_method(job.spec, artifacts), earlier).to_inputs(
        job, job.spec.compute.image or environment.trainer_image, now, environment
    )


@dataclass(frozen=True, slots=True)
class Sources:
    """What a job starts from, resolved.

    Attributes:
        base_model: URI of the base model.
        initial: adapter of another job that training starts from.
        method: the method, with the reward models that other jobs made.
        earlier: the FineTuneJobs that the job names.
        mounted: Secrets that earlier pods of the job mounted, by role.
    """

    base_model: str
    initial: ArtifactSource | None
    method: Method
    earlier: Mapping[str, FineTuneJob | None] = field(default_factory=dict)
    mounted: Mapping[str, str] = field(default_factory=dict)

    def to_inputs(self, job: FineTuneJob, image: str, started: datetime, environment: Environment) -> Inputs:
        """The inputs of a job that starts from these sources."""
        secrets = dict(self.mounted) | resolve_secrets(job.spec, self.earlier)
        from_hub = self.base_model.startswith(f"{Scheme.HF}://")
        return Inputs(
            spec=job.spec.to_snapshot(without=CHANGEABLE),
            image=image,
            started=started,
            config=_prepare_config(job, self.base_model, self.method),
            ca_bundle=environment.ca_bundle,
            token_secret=secrets.get(SecretRole.BASE_MODEL, "") if from_hub else "",
            secrets=secrets,
            initial=self.initial,
            generate=resolve_generation(job, self.base_model),
        )


def _prepare_config(job: FineTuneJob, base_model: str, method: Method) -> PrepareConfig:
    spec, meta = job.spec, job.metadata
    data = spec.dataset
    argilla = data.train.argilla if data.train else None
    return PrepareConfig(
        owner=Owner(kind="FineTuneJob", namespace=meta.namespace, name=meta.name, uid=meta.uid),
        base_model=base_model,
        train=data.train.locations if data.train else (),
        argilla=argilla and ArgillaSource.model_validate(plain_data(argilla)),
        generated=generated_rows(job),
        validation=ValidationSource.model_validate(plain_data(data.validation)),
        held_out=suite_rows(spec),
        method=method,
        formats=spec.output.formats,
        template_arguments=read_switches(data.template_arguments),
        seed=spec.hyperparameters.seed,
        workspace=spec.workspace.uri if spec.workspace else None,
        output=spec.output.uri,
        **{key: value for key, value in plain_data(data).items() if key not in _SOURCES},
    )


def data_fields(spec: FineTuneJobSpec) -> dict[str, str]:
    """URIs of rows in the spec, by field."""
    data, suites = spec.dataset, spec.evaluation.suites if spec.evaluation else ()
    written = data.train.fields if data.train else {}
    train = {f"spec.dataset.train.{member}": uri for member, uri in written.items()}
    own = {"spec.dataset.validation.uri": data.validation.uri} if data.validation.uri else {}
    held_out = {
        f"spec.evaluation.suites[{suite.name}].dataset.uri": suite.dataset.uri
        for suite in suites
        if suite.dataset
    }
    return train | generation_fields(spec) | own | held_out


def apply_snapshot(job: FineTuneJob, inputs: Inputs) -> FineTuneJob:
    """The job with the spec of its inputs, but for the fields that may change later."""
    spec = FineTuneJobSpec.model_validate_json(inputs.spec)
    changes = {name: getattr(job.spec, name) for name in CHANGEABLE}
    return job.model_copy(update={"spec": spec.model_copy(update=changes)})


def find_invalid_uri(inputs: Inputs) -> Failure | None:
    """Failure for a URI that names no storage; None where all do."""
    config = inputs.config
    assert isinstance(config, PrepareConfig)
    source = inputs.generate.generation.source if inputs.generate else None
    held_out = (rows.uri for rows in config.held_out)
    data = (*config.train, config.validation.uri, source, *held_out)
    try:
        for uri in (config.base_model, *data, config.workspace, config.output):
            if uri:
                parse_uri(uri)
    except InvalidUri as error:
        return Failure(category=FailureCategory.USER_ERROR, reason="InvalidUri", message=str(error))
    return None
