"""Rows that a teacher makes before prepare: what the stage is told, and what it opens."""

from collections.abc import Mapping

from tunesmith.api.endpoints import ChatEndpoint
from tunesmith.api.filter_rewards import EndpointReward
from tunesmith.api.finetunejob import FineTuneJob, FineTuneJobSpec
from tunesmith.api.generate import Generate, Judge, SeedRows
from tunesmith.manifests.generate_job import generation_uris
from tunesmith_contract import generation as contract
from tunesmith_contract import methods
from tunesmith_contract.layout import SecretRole, filter_role, generated_uri, work_uri
from tunesmith_contract.run_config import GenerateConfig, HeldOut, Owner
from tunesmith_contract.uris import Scheme, parse_uri

from .run_config import resolve_reward

_FIELD = "spec.dataset.generate"
#: What rewards need the base model's tokenizer for.
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
    """All that the stage is told; None for a job without it."""
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
    """Where the rows of a job's teacher lie; None for a job without one.

    Raises:
        InvalidUri: the job's output or workspace names no storage.
    """
    spec, meta = job.spec, job.metadata
    if spec.dataset.generate is None:
        return None
    place = parse_uri(spec.workspace.uri if spec.workspace else spec.output.uri)
    return str(generated_uri(work_uri(place, meta.namespace, meta.uid)))


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
        str(role): (what.secret_ref.name, f"{field}.secretRef.name")
        for role, (what, field) in written.items()
        if what is not None and what.secret_ref is not None
    }


def for_generate(secrets: Mapping[str, str], config: GenerateConfig) -> dict[str, str]:
    """What generation opens: its endpoints and rows; the base model's Secret only where something is opened with it."""
    roles = set(_OWN_ROLES) | (_HELD_OUT_ROLES if config.held_out else set())
    if config.base_model or any(uri.scheme is Scheme.HF for uri in generation_uris(config)):
        roles.add(SecretRole.BASE_MODEL)
    rewards = filter_role("")
    return {role: name for role, name in secrets.items() if role in roles or role.startswith(rewards)}


def _generation(generate: Generate) -> contract.Generation:
    paraphrases, instructed = generate.paraphrases, generate.self_instruct
    return contract.Generation(
        endpoint=_endpoint(generate.endpoint),
        answers=contract.Answers(prompts=generate.answers.prompts.uri) if generate.answers else None,
        paraphrases=paraphrases
        and contract.Paraphrases(rows=paraphrases.rows.uri, per_row=paraphrases.per_row),
        self_instruct=instructed and contract.SelfInstruct(seeds=instructed.seeds.uri, rows=instructed.rows),
        preferences=_preferences(generate),
        instructions=generate.instructions,
        temperature=float(generate.temperature),
        max_tokens=generate.max_tokens,
        concurrency=generate.concurrency,
        requests_per_minute=generate.requests_per_minute,
        filter=_filter(generate),
        budget=contract.GenerationBudget.model_validate(generate.budget.to_dict()),
        minimum_rows=generate.minimum_rows,
    )


def _preferences(generate: Generate) -> contract.Preferences | None:
    written = generate.preferences
    if written is None:
        return None
    judge = contract.Judge(**_judge(written.judge))
    return contract.Preferences(prompts=written.prompts.uri, answers=written.answers, judge=judge)


def _filter(generate: Generate) -> contract.GenerationFilter:
    written = generate.filter
    if written is None:
        return contract.GenerationFilter()
    judge = written.judge
    return contract.GenerationFilter(
        judge=contract.ScoringJudge(**_judge(judge), minimum=float(judge.minimum)) if judge else None,
        rewards=tuple(resolve_reward(reward) for reward in written.rewards or ()),
        minimum_reward=float(written.minimum_reward or 0),
    )


def _judge(judge: Judge) -> dict[str, object]:
    endpoint = _endpoint(judge.endpoint) if judge.endpoint else None
    return {"endpoint": endpoint, "criteria": judge.criteria, "max_tokens": judge.max_tokens}


def _endpoint(endpoint: ChatEndpoint) -> methods.ChatEndpoint:
    return methods.ChatEndpoint(url=endpoint.url, model=endpoint.model)


def _held_out(spec: FineTuneJobSpec) -> tuple[HeldOut, ...]:
    """Rows that are measured on: those of the validation, and all that the job's own evaluation asks."""
    validation = spec.dataset.validation.uri
    own = (HeldOut(name="validation", uri=validation),) if validation else ()
    suites = spec.evaluation.suites if spec.evaluation else ()
    return (*own, *(HeldOut(name=suite.name, uri=suite.dataset.uri) for suite in suites))
