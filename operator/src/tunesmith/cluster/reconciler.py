"""How a kind plugs into the operator: four functions and a name."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from tunesmith.controller_runtime.client import Client
from tunesmith.decide.plan import Plan
from tunesmith.manifests.environment import Environment

from .live import Live

Body = Mapping[str, Any]
Resource = TypeVar("Resource")
Observed = TypeVar("Observed")


@dataclass(frozen=True, slots=True)
class Reconciler(Generic[Resource, Observed]):
    """One kind of resource.

    Attributes:
        kind: such as ``FineTuneJob``.
        parse: the model of the body as the API server returns it; raises ValueError (pydantic's ValidationError is one)
            with a sentence that says what to write instead: it becomes ``Stalled=True``.
        observe: reads what the plan needs, with ``children.observe_children`` for what the resource owns; raises
            errors.ApiError, which is retried with back-off.
        plan: pure. Called on each change of the resource, of its children, on news from its pods, when
            ``requeue_after`` is over, and on a resync: level-based, and again with the same answer.
        dependents: of the known bodies of this kind, those that a change of another resource concerns.
    """

    kind: str
    parse: Callable[[Mapping[str, Any]], Resource]
    observe: Callable[[Client, Resource, Live, Environment], Awaitable[Observed]]
    plan: Callable[[Resource, Observed, datetime, Environment], Plan]
    dependents: Callable[[Body, Iterable[Body]], Iterable[Body]] | None = None
