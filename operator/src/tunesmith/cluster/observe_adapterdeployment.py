"""Observation of an AdapterDeployment: its children, the FineTuneJobs it names, verdicts, and its agents."""

from collections.abc import Iterator, Mapping
from itertools import chain

from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.common import ObjectMeta
from tunesmith.api.values import AUTO
from tunesmith.controller_runtime.bodies import Key, Reference
from tunesmith.decide.serving.admission.evaluations import ObservedEvalRun
from tunesmith.decide.serving.planning import ObservedServing
from tunesmith.decide.serving.pods.claims import asks_for_claims, mounted_claims
from tunesmith.decide.serving.pods.engine_memory import asks_for_nodes, find_base_model
from tunesmith.decide.serving.pods.fleet import Agent
from tunesmith.manifests.names import STAGE_LABEL, Component
from tunesmith.manifests.objects import Body
from tunesmith.manifests.result_config_map import record_text
from tunesmith.manifests.serving_config_maps import history_name
from tunesmith.manifests.serving_service import serving_service_name
from tunesmith.manifests.verdict_records import ARTIFACT_KEY

from .children import observe_children, observe_pods, observe_verdicts
from .observe_run import observe_claims
from .reconciler import Reader


async def observe_adapterdeployment(reader: Reader, deployment: AdapterDeployment) -> ObservedServing:
    """Read the resource's children, the FineTuneJobs that it names, and the verdicts of its namespace.

    Raises:
        ApiError: a read failed.
    """
    client, metadata = reader.client, deployment.metadata
    pods = tuple(
        pod
        for pod in await observe_pods(client, metadata)
        if pod["metadata"]["labels"].get(STAGE_LABEL) == Component.SERVING
    )
    reader.live.agents.keep_only(metadata.uid, frozenset(pod["metadata"]["uid"] for pod in pods))
    deployments = await observe_children(client, "apps/v1", "Deployment", metadata)
    policies = await observe_children(client, "networking.k8s.io/v1", "NetworkPolicy", metadata)
    budgets = await observe_children(client, "policy/v1", "PodDisruptionBudget", metadata)
    records = await _observe_records(reader, deployment)
    jobs = {
        name: reader.bodies.get(Key("FineTuneJob", metadata.namespace, name)) for name in _jobs(deployment)
    }
    return ObservedServing(
        config_maps=await observe_children(client, "v1", "ConfigMap", metadata),
        history=await _observe_history(reader, deployment),
        deployments=deployments,
        service=await _observe_service(reader, deployment),
        disruption_budget=next(iter(budgets), None),
        network_policy=next(iter(policies), None),
        revisions=await observe_children(client, "apps/v1", "ControllerRevision", metadata),
        pods=pods,
        agents=tuple(
            Agent(state.report, state.connected, state.ended, state.told)
            for state in reader.live.agents.states(metadata.uid)
        ),
        jobs=jobs,
        eval_runs=await _observe_eval_runs(reader, deployment, jobs),
        verdicts=await _observe_verdicts(reader, deployment, jobs),
        records=records,
        nodes=await _observe_nodes(reader, deployment, records),
        claims=await _observe_claims(reader, deployment, deployments),
        leading_seconds=reader.live.agents.seconds,
    )


def adapterdeployment_references(deployment: AdapterDeployment) -> Iterator[Reference]:
    """The FineTuneJobs that adapters come from, and all EvalRuns: any of them may judge one."""
    for name in _jobs(deployment):
        yield Reference("FineTuneJob", name)
    if deployment.spec.adapters:
        yield Reference("EvalRun", None)


def _jobs(deployment: AdapterDeployment) -> list[str]:
    references = (adapter.source.fine_tune_job_ref for adapter in deployment.spec.adapters)
    return sorted({reference.name for reference in references if reference is not None})


async def _observe_history(reader: Reader, deployment: AdapterDeployment) -> Body | None:
    """The history of the resource's name, which an earlier resource may have left; it is owned by none."""
    metadata, name = deployment.metadata, history_name(deployment.metadata.name)
    known = reader.client.index.find("v1", "ConfigMap", metadata.uid) or ()
    own = next((config_map for config_map in known if config_map["metadata"]["name"] == name), None)
    return own or await reader.client.get("v1", "ConfigMap", metadata.namespace, name)


async def _observe_service(reader: Reader, deployment: AdapterDeployment) -> Body | None:
    """The resource's Service; where it has none, another object of that name."""
    metadata, name = deployment.metadata, serving_service_name(deployment)
    services = await observe_children(reader.client, "v1", "Service", metadata)
    own = next((service for service in services if service["metadata"]["name"] == name), None)
    return own or await reader.client.get("v1", "Service", metadata.namespace, name)


async def _observe_records(reader: Reader, deployment: AdapterDeployment) -> tuple[Body, ...]:
    """Records of the first FineTuneJob on the same base model that has prepared its data.

    They hold its sizes, and the forms of its answers.
    """
    engine = deployment.spec.engine
    if engine.gpus == 0 and AUTO not in {engine.tool_call_parser, engine.reasoning_parser}:
        return ()
    named = _jobs(deployment)
    namespace, model = deployment.metadata.namespace, deployment.spec.base_model.uri
    bodies = chain(
        (reader.bodies.get(Key("FineTuneJob", namespace, name)) for name in named),
        reader.bodies.mentioning("FineTuneJob", namespace, {model}),
    )
    for body in bodies:
        if body is None or not _is_on_base_model(body, deployment, named):
            continue
        owner = ObjectMeta.model_validate(body["metadata"])
        records = await observe_children(reader.client, "v1", "ConfigMap", owner)
        if find_base_model(records) is not None:
            return records
    return ()


def _is_on_base_model(job: Body, deployment: AdapterDeployment, named: list[str]) -> bool:
    """True for a job whose adapter is served, or with the same base model."""
    uri = (job.get("spec") or {}).get("baseModel", {}).get("uri")
    return job["metadata"]["name"] in named or uri == deployment.spec.base_model.uri


async def _observe_nodes(
    reader: Reader, deployment: AdapterDeployment, records: tuple[Body, ...]
) -> tuple[Body, ...] | None:
    """The nodes, while their GPUs are compared with the model; none where the operator may not list them."""
    if not asks_for_nodes(deployment, find_base_model(records)):
        return None
    return await reader.cluster.nodes(reader.client)


async def _observe_claims(
    reader: Reader, deployment: AdapterDeployment, observed: tuple[Body, ...]
) -> dict[str, tuple[str, ...]] | None:
    """Access modes of the claims that the pods mount, while they matter."""
    if not asks_for_claims(deployment, observed):
        return None
    return await observe_claims(reader.client, deployment.metadata.namespace, mounted_claims(deployment.spec))


async def _observe_eval_runs(
    reader: Reader, deployment: AdapterDeployment, jobs: Mapping[str, Body | None]
) -> tuple[ObservedEvalRun, ...]:
    """The EvalRuns whose records name an artifact of the adapters.

    Status is not asked: whoever may write it could hide a run that failed.
    """
    digests, namespace = _source_digests(deployment, jobs), deployment.metadata.namespace
    reader.bodies.await_mentions(Key("AdapterDeployment", namespace, deployment.metadata.name), digests)
    owners = reader.client.index.owners_mentioning(digests)
    uids = reader.bodies.uids("EvalRun", namespace) if owners is None else owners
    keys = (key for uid in uids if (key := reader.bodies.key(uid)) is not None)
    runs = []
    for key in sorted(key for key in keys if (key.kind, key.namespace) == ("EvalRun", namespace)):
        body = reader.bodies.get(key)
        if body is None:
            continue
        owner = ObjectMeta.model_validate(body["metadata"])
        config_maps = await observe_children(reader.client, "v1", "ConfigMap", owner)
        texts = [text for config_map in config_maps if (text := record_text(config_map)) is not None]
        if any(digest in text for digest in digests for text in texts):
            runs.append(ObservedEvalRun(body, config_maps))
    return tuple(runs)


async def _observe_verdicts(
    reader: Reader, deployment: AdapterDeployment, jobs: Mapping[str, Body | None]
) -> tuple[Body, ...]:
    """The ConfigMaps that keep the verdicts on the artifacts of the adapters."""
    digests = _source_digests(deployment, jobs)
    bodies = await observe_verdicts(reader.client, deployment.metadata.namespace, digests)
    return tuple(body for body in bodies if (body.get("data") or {}).get(ARTIFACT_KEY) in digests)


def _source_digests(deployment: AdapterDeployment, jobs: Mapping[str, Body | None]) -> frozenset[str]:
    """Digests of the artifacts that the adapters name now."""
    written = [adapter.source.digest for adapter in deployment.spec.adapters]
    statuses = [(body or {}).get("status") or {} for body in jobs.values()]
    made = [(status.get("artifact") or {}).get("digest") for status in statuses]
    return frozenset(filter(None, [*written, *made]))
