"""Reads shared by FineTuneJob and EvalRun: ConfigMaps, Jobs, pods, Kueue Workloads and failed mounts."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from tunesmith.controller_runtime.client import Client
from tunesmith.decide.finetunejob.observed import LiveProgress
from tunesmith.decide.objects import (
    is_finished,
    is_suspended,
    job_end,
    job_started_at,
    lacks_pods,
    terminated,
    waiting,
)
from tunesmith.decide.plan import owned_by
from tunesmith.decide.run.children import AttemptKey, lacks_job
from tunesmith.decide.run.waiting import NO_POD_DELAY
from tunesmith.manifests.names import ATTEMPT_LABEL, STAGE_LABEL, Metadata, children_selector
from tunesmith.manifests.objects import Body, with_first_deletion_request
from tunesmith.manifests.outbound import mounted_authorities
from tunesmith.manifests.result_config_map import recorded_attempt
from tunesmith_contract.stages import Stage
from tunesmith_contract.uris import Scheme, parse_uri_or_none

from .children import observe_children, observe_pods
from .live import Progress
from .reconciler import Reader


@dataclass(frozen=True, slots=True)
class RunChildren:
    """The children of a run, by kind."""

    config_maps: tuple[Body, ...]
    jobs: tuple[Body, ...]
    pods: tuple[Body, ...]


def has_ended(children: RunChildren, stage: Stage) -> bool:
    """True where a Job of the stage has ended, or the end of one of its attempts is recorded."""
    recorded = (attempt for body in children.config_maps if (attempt := recorded_attempt(body)))
    ended = (job for job in children.jobs if job_end(job) is not None)
    return any(name == stage for name, _ in (*recorded, *map(_attempt_of, ended)))


async def observe_run_children(client: Client, owner: Metadata, begun: int = 0) -> RunChildren:
    """Read the children of a run.

    Args:
        begun: number of attempts that have begun as status tells it.
    """
    config_maps = await observe_children(client, "v1", "ConfigMap", owner)
    jobs = await observe_children(client, "batch/v1", "Job", owner)
    pods = await observe_pods(client, owner) if jobs or begun else ()
    recorded = {attempt for body in config_maps if (attempt := recorded_attempt(body))}
    if lacks_job(recorded, jobs, (*pods, *client.index.removed_pods(owner.uid)), begun):
        # An attempt whose Job was deleted is given up. The watch of Jobs may be behind; a list is not.
        listed_jobs = await client.list("batch/v1", "Job", owner.namespace, children_selector(owner.uid))
        jobs = tuple(job for job in listed_jobs if owned_by(job, owner.uid))
    if any(_attempt_of(job) not in recorded and _is_ahead_of(job, pods) for job in jobs):
        # The watch of Jobs may be ahead of the one of pods; a list is not, and the pods hold exit codes and messages.
        # Indexed pods that the list lacks stay: the watch has not yet delivered their removal.
        listed_pods = await client.list("v1", "Pod", owner.namespace, children_selector(owner.uid))
        indexed = {pod["metadata"]["uid"]: pod for pod in pods}
        listed = {pod["metadata"]["uid"]: pod for pod in listed_pods}
        newest = {uid: with_first_deletion_request(pod, indexed.get(uid)) for uid, pod in listed.items()}
        pods = tuple((indexed | newest).values())
    return RunChildren(config_maps, jobs, (*pods, *_removed_pods(client, owner, recorded, jobs, pods)))


def _removed_pods(
    client: Client,
    owner: Metadata,
    recorded: Collection[AttemptKey],
    jobs: Sequence[Body],
    pods: Sequence[Body],
) -> tuple[Body, ...]:
    """Pods that ended and were removed, of these Jobs and of attempts without a record; others are forgotten."""
    uids = {job["metadata"]["uid"] for job in jobs}

    def is_needed(pod: Body) -> bool:
        return _attempt_of(pod) not in recorded or any(owned_by(pod, uid) for uid in uids)

    client.index.forget_removed_pods(owner.uid, keep=is_needed)
    present = {pod["metadata"]["uid"] for pod in pods}
    return tuple(pod for pod in client.index.removed_pods(owner.uid) if pod["metadata"]["uid"] not in present)


async def observe_workloads(
    reader: Reader, owner: Metadata, jobs: Iterable[Body], suspend: bool
) -> tuple[Body, ...] | None:
    """Kueue's Workloads of the run's live Jobs; None where there is no Kueue."""
    version = await reader.cluster.kueue_version(reader.client)
    if version is None:
        return None
    live = (job["metadata"]["uid"] for job in jobs if job_end(job) is None)
    return await reader.workloads.observe(reader.client, version, owner, live, suspend, reader.now())


async def observe_missing_config_maps(
    client: Client, namespace: str, children: RunChildren, uris: Iterable[str | None]
) -> tuple[str, ...]:
    """ConfigMaps of URIs and of authorities that do not exist; read only while a container can't be created.

    One of authorities that lacks the key which is mounted is told as ``name/key``.

    A pod's status does not name them. It names claims and Secrets, so the operator needs no right to read those.
    """
    pods = _pods_without_container(children)
    if not pods:
        return ()
    parsed = (parse_uri_or_none(uri) for uri in uris if uri)
    named = {uri.name for uri in parsed if uri is not None and uri.scheme is Scheme.CONFIGMAP}
    mounted = {authorities for pod in pods for authorities in mounted_authorities(pod)}
    names = sorted(named | {name for name, _ in mounted})
    bodies = {name: await client.get("v1", "ConfigMap", namespace, name) for name in names}
    absent = [name for name, body in bodies.items() if body is None]
    keyless = [
        f"{name}/{key}"
        for name, key in sorted(mounted)
        if (body := bodies[name]) is not None and key not in _keys_of(body)
    ]
    return (*absent, *keyless)


def _keys_of(config_map: Body) -> set[str]:
    return {*(config_map.get("data") or ()), *(config_map.get("binaryData") or ())}


async def observe_claims(client: Client, namespace: str, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Access modes of the claims that exist."""
    bodies = {name: await client.get("v1", "PersistentVolumeClaim", namespace, name) for name in names}
    return {name: tuple(body["spec"].get("accessModes") or ()) for name, body in bodies.items() if body}


async def observe_mount_failures(reader: Reader, owner: Metadata, children: RunChildren) -> tuple[str, ...]:
    """Messages of nodes about Secrets that they can't mount; read only while a container can't be created."""
    pods = _pods_without_container(children)
    return await reader.mounts.observe(reader.client, owner, pods, reader.now())


async def observe_creation_failures(reader: Reader, namespace: str, children: RunChildren) -> dict[str, str]:
    """Latest messages about pods that a Job could not create, by the Job's name; read only after it waited for them."""
    failures = {}
    for job in children.jobs:
        started, own = (
            job_started_at(job),
            [pod for pod in children.pods if _attempt_of(pod) == _attempt_of(job)],
        )
        if started is None or job_end(job) is not None or is_suspended(job) or not lacks_pods(job, own):
            continue
        if reader.now() < started + NO_POD_DELAY:
            continue
        selector = f"regarding.name={job['metadata']['name']},reason=FailedCreate"
        events = await reader.client.list("events.k8s.io/v1", "Event", namespace, field_selector=selector)
        if events:
            failures[str(job["metadata"]["name"])] = str(max(events, key=_last_seen).get("note", ""))
    return failures


def _last_seen(event: Body) -> str:
    """When an event occurred last; times of one form are in order as text."""
    series = (event.get("series") or {}).get("lastObservedTime")
    return str(series or event.get("deprecatedLastTimestamp") or event.get("eventTime") or "")


def live_progress(latest: Progress | None) -> LiveProgress | None:
    """The latest progress of a run's pods, with the stage and attempt that their labels tell."""
    if latest is None or not latest.labels.get(ATTEMPT_LABEL, "").isdecimal():
        return None
    return LiveProgress(latest.labels.get(STAGE_LABEL, ""), int(latest.labels[ATTEMPT_LABEL]), latest.status)


def _is_ahead_of(job: Body, pods: Sequence[Body]) -> bool:
    """True where the Job has ended and some of its pods have not, as far as these bodies show.

    Pods that were evicted before their container started never get the state of one that ended.
    """
    if job_end(job) is None:
        return False
    own = [pod for pod in pods if _attempt_of(pod) == _attempt_of(job)]
    return not own or not all(terminated(pod) or is_finished(pod) for pod in own)


def _attempt_of(body: Body) -> tuple[str | None, str | None]:
    labels = body["metadata"].get("labels", {})
    return labels.get(STAGE_LABEL), labels.get(ATTEMPT_LABEL)


def _pods_without_container(children: RunChildren) -> list[Body]:
    """Pods of live Jobs whose container can't be created yet."""
    live = {_attempt_of(job) for job in children.jobs if job_end(job) is None and not is_suspended(job)}
    return [pod for pod in children.pods if waiting(pod) and _attempt_of(pod) in live]
