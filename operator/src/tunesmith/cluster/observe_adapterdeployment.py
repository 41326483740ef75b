"""What a plan needs to know of an AdapterDeployment.

Its artefacts come from FineTuneJobs, its admissions from EvalRuns; neither is a child. ``dependents`` says which
AdapterDeployments a change of one of them concerns; what it misses is looked at again within seconds, because a plan
that waits for such an object asks to be called again (``requeue_after``).
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.controller_runtime.client import Body, Client
from tunesmith.decide.serving.fleet import Agent
from tunesmith.decide.serving.planning import ObservedServing
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.names import API_VERSION, STAGE_LABEL, Component
from tunesmith.manifests.serving_deployment import serving_deployment_name
from tunesmith.manifests.serving_service import serving_service_name

from .children import observe_children, observe_pods
from .live import Live


async def observe_adapterdeployment(
    client: Client, deployment: AdapterDeployment, live: Live, environment: Environment
) -> ObservedServing:
    """Read the resource's children, the FineTuneJobs that it names, and the EvalRuns of its namespace.

    Raises:
        ApiError: a read failed.
    """
    metadata = deployment.metadata
    config_maps = await observe_children(client, "v1", "ConfigMap", metadata)
    revisions = await observe_children(client, "apps/v1", "ControllerRevision", metadata)
    deployments = await observe_children(client, "apps/v1", "Deployment", metadata)
    pods = tuple(pod for pod in await observe_pods(client, metadata) if _is_serving(pod))
    service, budget, jobs, eval_runs = await asyncio.gather(
        client.get("v1", "Service", metadata.namespace, serving_service_name(deployment)),
        client.get(
            "policy/v1", "PodDisruptionBudget", metadata.namespace, serving_deployment_name(deployment)
        ),
        _observe_jobs(client, deployment),
        _observe_eval_runs(client, deployment),
    )
    live.agents.keep(metadata.uid, frozenset(pod["metadata"]["uid"] for pod in pods))
    return ObservedServing(
        config_maps=config_maps,
        deployment=next(iter(deployments), None),
        service=service,
        disruption_budget=budget,
        revisions=revisions,
        pods=pods,
        agents=tuple(Agent(state.report, state.connected) for state in live.agents.states(metadata.uid)),
        jobs=jobs,
        eval_runs=eval_runs,
    )


def dependents(body: Mapping[str, Any], known: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The AdapterDeployments that a change of this FineTuneJob or EvalRun concerns.

    Args:
        body: the changed resource.
        known: bodies of AdapterDeployments.
    """
    kind, metadata, status = body["kind"], body["metadata"], body.get("status") or {}
    if not (status.get("artifact") or status.get("verdict") or status.get("phase") == "Failed"):
        return
    for deployment in known:
        if deployment["metadata"]["namespace"] != metadata["namespace"]:
            continue
        sources = [adapter["source"] for adapter in deployment["spec"].get("adapters", ())]
        names = {source.get("fineTuneJobRef", {}).get("name") for source in sources}
        if (kind == "FineTuneJob" and metadata["name"] in names) or (kind == "EvalRun" and sources):
            yield deployment


def _is_serving(pod: Body) -> bool:
    return bool(pod["metadata"]["labels"].get(STAGE_LABEL) == Component.SERVING)


async def _observe_jobs(client: Client, deployment: AdapterDeployment) -> dict[str, Body | None]:
    references = (adapter.source.fine_tune_job_ref for adapter in deployment.spec.adapters)
    names = sorted({reference.name for reference in references if reference is not None})
    namespace = deployment.metadata.namespace
    bodies = await asyncio.gather(
        *(client.get(API_VERSION, "FineTuneJob", namespace, name) for name in names)
    )
    return dict(zip(names, bodies, strict=True))


async def _observe_eval_runs(client: Client, deployment: AdapterDeployment) -> tuple[Body, ...]:
    if not deployment.spec.adapters:
        return ()
    return tuple(await client.list(API_VERSION, "EvalRun", deployment.metadata.namespace))
