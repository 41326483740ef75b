"""Configuration and Secrets of the generate stage, in which a teacher makes rows."""

from collections.abc import Mapping

from tunesmith.api.endpoints import ChatEndpoint
from tunesmith.api.filter_rewards import EndpointReward
from tunesmith.api.finetunejob import FineTuneJob, FineTuneJobSpec
from tunesmith.api.generate import Generate, SeedRows
from tunesmith.manifests.stage_jobs import generation_uris
from tunesmith_contract import generation as contract
from tunesmith_contract.layout import SecretRole, filter_role, generated_uri, suite_role, work_uri
from tunesmith_contract.run_config import GenerateConfig, HeldOut, Owner
from tunesmith_contract.uris import Scheme, parse_uri

from .method import plain_data, reward_document

_FIELD = "spec.dataset.generate"
#: Rewards that need the base model's tokenizer.
_COUNTING = ("length", "function")
_OWN_ROLES = frozenset(
    {
        SecretRole.GENERATOR,
        SecretRole.JUDGE,
        SecretRole.FILTER_JUDGE,
        SecretRole.SEEDS,
        SecretRole.OUTPUT,
        SecretRole.WORKSPACE,
    }
)
_HELD_OUT_ROLES = frozenset({SecretRole.TRAIN, SecretRole.VALIDATION})


def resolve_generation(job: FineTuneJob, base_model: str) -> GenerateConfig | None:
    """Configuration of the generate stage; None for a job without it."""
    spec, meta = job.spec, job.metadata
    generate = spec.dataset.generate
    if generate is None:
        return None
    rewards = (generate.filter.rewards if generate.filter else None) or ()
    counts = any(getattr(reward, kind) is not None for reward in rewards for kind in _COUNTING)
    return GenerateConfig(
        owner=Owner(kind="FineTuneJob", namespace=meta.namespace, name=meta.name, uid=meta.uid),
        base_model=base_model if counts else None,
        generation=_generation(generate),
        held_out=_held_out(spec),
        seed=spec.hyperparameters.seed,
        workspace=spec.workspace.uri if spec.workspace else None,
        output=spec.output.uri,
    )


def generated_rows(job: FineTuneJob) -> str | None:
    """URI of the generated rows of a job; None for a job without a teacher.

    Raises:
        InvalidUri: the job's output or workspace names no storage.
    """
    spec, meta = job.spec, job.metadata
    if spec.dataset.generate is None:
        return None
    place = parse_uri(spec.workspace.uri if spec.workspace else spec.output.uri)
    return str(generated_uri(work_uri(place, meta.namespace, meta.uid)))


def suite_rows(spec: FineTuneJobSpec) -> tuple[HeldOut, ...]:
    """Rows of the suites of the job's own evaluation: they are held out of its training data."""
    suites = spec.evaluation.suites if spec.evaluation else ()
    return tuple(
        HeldOut(
            name=suite.name,
            uri=suite.dataset.uri,
            format=suite.dataset.format,
            columns=suite.dataset.columns.to_dict() if suite.dataset.columns else {},
        )
        for suite in suites
        if suite.dataset
    )


def generation_fields(spec: FineTuneJobSpec) -> dict[str, str]:
    """URIs by the field that names each."""
    generate = spec.dataset.generate
    return {f"{_FIELD}.{generate.source_field}.uri": generate.source.uri} if generate else {}


def generation_secrets(spec: FineTuneJobSpec) -> dict[str, tuple[str, str]]:
    """Role to the Secret's name and the field that names it."""
    generate = spec.dataset.generate
    if generate is None:
        return {}
    comparing = generate.preferences.judge.endpoint if generate.preferences else None
    scoring = generate.filter.judge if generate.filter else None
    written: dict[str, tuple[ChatEndpoint | EndpointReward | SeedRows | None, str]] = {
        SecretRole.GENERATOR: (generate.endpoint, f"{_FIELD}.endpoint"),
        SecretRole.JUDGE: (comparing, f"{_FIELD}.preferences.judge.endpoint"),
        SecretRole.FILTER_JUDGE: (scoring.endpoint if scoring else None, f"{_FIELD}.filter.judge.endpoint"),
        SecretRole.SEEDS: (generate.source, f"{_FIELD}.{generate.source_field}"),
    }
    for reward in (generate.filter.rewards if generate.filter else None) or ():
        written[filter_role(reward.name)] = (
            reward.endpoint,
            f"{_FIELD}.filter.rewards[{reward.name}].endpoint",
        )
    return {
        str(role): (opened.secret_ref.name, f"{field}.secretRef.name")
        for role, (opened, field) in written.items()
        if opened is not None and opened.secret_ref is not None
    }


def generate_secrets(secrets: Mapping[str, str], config: GenerateConfig) -> dict[str, str]:
    """Secrets of the generate stage, by role; the base model's only where something is opened with it."""
    roles = set(_OWN_ROLES) | (_HELD_OUT_ROLES if config.held_out else set())
    if config.base_model or any(uri.scheme is Scheme.HF for uri in generation_uris(config)):
        roles.add(SecretRole.BASE_MODEL)
    named = (filter_role(""), *((suite_role(""),) if config.held_out else ()))
    return {role: name for role, name in secrets.items() if role in roles or role.startswith(named)}


def _generation(generate: Generate) -> contract.Generation:
    document = plain_data(generate)
    # The contract has the URI of the rows where people write a source with its Secret.
    task, field = generate.source_field.split(".")
    document[task][field] = generate.source.uri
    if generate.filter and generate.filter.rewards:
        document["filter"]["rewards"] = [reward_document(reward) for reward in generate.filter.rewards]
    return contract.Generation.model_validate(document)


def _held_out(spec: FineTuneJobSpec) -> tuple[HeldOut, ...]:
    """Rows that must not be generated: those of the validation, and of the suites."""
    validation = spec.dataset.validation.uri
    rows = (HeldOut(name="validation", uri=validation),) if validation else ()
    return (*rows, *suite_rows(spec))
