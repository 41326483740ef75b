"""The functions by which a kind plugs into the operator."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Generic, TypeVar

from tunesmith.controller_runtime.bodies import Bodies, Reference
from tunesmith.controller_runtime.client import Client
from tunesmith.decide.plan import Plan
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.objects import Body

from .cluster_reads import ClusterReads
from .live import Live
from .mount_failures import MountFailures
from .workloads import Workloads

Resource = TypeVar("Resource")
Observed = TypeVar("Observed")


Now = Callable[[], datetime]


def utc_now() -> datetime:
    """Current time in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Reader:
    """Sources of an observation.

    Attributes:
        client: reads of the API server, and the index of children.
        bodies: all resources of the operator's kinds.
        live: latest reports of pods.
        mounts: what nodes told of volumes that they can't mount.
        workloads: Kueue's Workloads of resources that wait in a queue.
        cluster: reads that resources share.
        now: the current time.
    """

    client: Client
    bodies: Bodies
    live: Live
    mounts: MountFailures = field(default_factory=MountFailures)
    workloads: Workloads = field(default_factory=Workloads)
    cluster: ClusterReads = field(default_factory=ClusterReads)
    now: Now = utc_now


def no_references(_: object) -> Iterable[Reference]:
    """References of a kind that has none."""
    return ()


@dataclass(frozen=True, slots=True)
class Reconciler(Generic[Resource, Observed]):
    """One kind of resource.

    Attributes:
        kind: such as ``FineTuneJob``.
        parse: model of the body as the API server returns it; raises ValueError (pydantic's ValidationError is one)
            with a sentence that says what to write instead: it becomes ``Stalled=True``.
        observe: reads what the plan needs, with ``children.observe_children`` for what the resource owns; raises
            errors.ApiError, which is retried with back-off.
        plan: pure. Called on each change of the resource, of its children and of the outcome of what it refers to, on
            reports of its pods, when ``requeue_after`` is over, and on a resync: level-based, and again with the same
            answer.
        references: resources of the operator's kinds that the resource names.
        children: ``apiVersion`` and ``kind`` of the labeled objects that the resource can have.
    """

    kind: str
    parse: Callable[[Body], Resource]
    observe: Callable[[Reader, Resource], Awaitable[Observed]]
    plan: Callable[[Resource, Observed, datetime, Environment], Plan]
    references: Callable[[Resource], Iterable[Reference]] = no_references
    children: tuple[tuple[str, str], ...] = ()
