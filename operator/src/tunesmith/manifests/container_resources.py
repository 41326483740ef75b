"""Requests and limits of containers: defaults under what people wrote, and limits of what a quota may count.

A namespace whose quota counts ``limits.cpu`` refuses a pod if one of its containers has no such limit. So where people
limit a resource of a pod's main container, or the operator was installed with a ratio for it, all containers of the
pod get a limit of it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith.api.common import Resources
from tunesmith.api.values import quantity_amount, scale_quantity

CPU, MEMORY, DISK = "cpu", "memory", "ephemeral-storage"
#: Resources that every container uses: those that a quota can ask all of them to limit.
USED_BY_ALL = (CPU, MEMORY, DISK)

#: Limits of containers that nobody limits, where there has to be one, as a multiple of what they request.
_RATIOS: Mapping[str, str] = {CPU: "4", MEMORY: "2", DISK: "2"}
#: The same for a container without such a request.
_UNREQUESTED: Mapping[str, str] = {CPU: "1", MEMORY: "2Gi", DISK: "2Gi"}


@dataclass(frozen=True, slots=True)
class LimitRules:
    """Limits that the containers of a pod must have.

    Attributes:
        ratios: limit by request of each resource that all containers of all pods must limit, as decimal numbers.
        limited: further resources that all containers of the pod must limit.
    """

    ratios: Mapping[str, str] = field(default_factory=dict)
    limited: frozenset[str] = frozenset()

    def for_pod(self, *main: Resources | None) -> "LimitRules":
        """The rules of a pod whose main container has these settings."""
        written = {name for resources in main if resources for name in resources.limits or {}}
        return LimitRules(self.ratios, self.limited | (written & set(USED_BY_ALL)))

    def complete(self, requests: Mapping[str, str], limits: Mapping[str, str]) -> dict[str, str]:
        """Limits of a container, with those that have to be there as well."""
        completed = dict(limits)
        for name in USED_BY_ALL:
            if name in limits or not (name in self.limited or name in self.ratios):
                continue
            request = requests.get(name)
            ratio = self.ratios.get(name, _RATIOS[name])
            completed[name] = _UNREQUESTED[name] if request is None else scale_quantity(request, ratio)
        return completed


@dataclass(frozen=True, slots=True)
class ContainerDefaults:
    """Requests and limits of a container, as far as nobody wrote others.

    Attributes:
        requests: its requests.
        limits: its limits.
        asked: its limits where all containers of the pod must have one.
    """

    requests: Mapping[str, str]
    limits: Mapping[str, str] = field(default_factory=dict)
    asked: Mapping[str, str] = field(default_factory=dict)


def build_resources(
    defaults: ContainerDefaults,
    written: Resources | None = None,
    rules: LimitRules = LimitRules(),
    devices: Mapping[str, int] | None = None,
    claims: Iterable[str] = (),
) -> dict[str, Any]:
    """``resources`` of a container.

    A limit alone is its own request, as in Kubernetes. A default limit is never below a request.

    Args:
        defaults: what holds where nobody wrote anything.
        written: what people wrote.
        rules: limits that have to be there.
        devices: extended resources, by name.
        claims: names of the pod's resource claims that the container uses.
    """
    limits = dict((written and written.limits) or {})
    requests = {name: amount for name, amount in defaults.requests.items() if name not in limits}
    requests |= (written and written.requests) or {}
    must = rules.limited | rules.ratios.keys()
    own = {**{name: amount for name, amount in defaults.asked.items() if name in must}, **defaults.limits}
    limits = {name: _at_least(amount, requests.get(name)) for name, amount in own.items()} | limits
    limits = rules.complete(requests, limits)
    limits |= {name: str(count) for name, count in (devices or {}).items()}
    parts: dict[str, Any] = {
        "requests": requests,
        "limits": limits,
        "claims": [{"name": name} for name in claims],
    }
    return {kind: part for kind, part in parts.items() if part}


def effective_requests(defaults: Mapping[str, str], resources: Resources | None) -> dict[str, str]:
    """Requests of a container as Kubernetes completes them: a limit without a request is the request."""
    limits = (resources and resources.limits) or {}
    return {**defaults, **limits, **((resources and resources.requests) or {})}


def shared_limits(resources: Resources | None) -> dict[str, str]:
    """Limits that the container of another stage can take over: not those of devices."""
    limits = (resources and resources.limits) or {}
    return {name: amount for name, amount in limits.items() if name in USED_BY_ALL}


def _at_least(amount: str, request: str | None) -> str:
    """The limit, or the request if that is higher."""
    return amount if request is None else max(amount, request, key=quantity_amount)
