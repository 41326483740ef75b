"""Sets of serving pods, as observed: each is a Deployment, and the Service selects one of them."""

from collections.abc import Iterable
from dataclasses import dataclass

from tunesmith.manifests.objects import Body
from tunesmith.manifests.serving_deployment import base_model_uri, set_number
from tunesmith.manifests.serving_service import Switch, latest_switch, selected_set

from .fleet import Agent, Fleet, build_fleet


@dataclass(frozen=True, slots=True)
class PodSet:
    """One set of pods with the same engine, image and base model.

    Attributes:
        number: a later set has a higher number.
        deployment: the Deployment of the pods.
        fleet: the pods. For agents of other pods it has only the requests that they counted.
    """

    number: int
    deployment: Body
    fleet: Fleet

    @property
    def model(self) -> str:
        """URI of the base model; empty for pods of the first release."""
        return base_model_uri(self.deployment)

    @property
    def name(self) -> str:
        """Name of the Deployment."""
        name: str = self.deployment["metadata"]["name"]
        return name


@dataclass(frozen=True, slots=True)
class PodSets:
    """All sets of an AdapterDeployment.

    Attributes:
        serving: the set that the Service selects; None before there is one.
        others: the sets that get no requests from the Service, ordered by number.
        switch: the latest change of the set that the Service selects.
        everyone: the pods of all sets.
    """

    serving: PodSet | None
    others: tuple[PodSet, ...]
    switch: Switch | None
    everyone: Fleet

    @property
    def fleet(self) -> Fleet:
        """The pods that answer clients."""
        return self.serving.fleet if self.serving else self.everyone

    @property
    def number(self) -> int | None:
        """Number of the set that the Service selects."""
        return self.serving.number if self.serving else None

    @property
    def all(self) -> tuple[PodSet, ...]:
        """All sets, the one that answers first."""
        return (*filter(None, [self.serving]), *self.others)


def read_pod_sets(
    deployments: Iterable[Body], service: Body | None, pods: Iterable[Body], agents: Iterable[Agent]
) -> PodSets:
    """Sets by the observed Deployments.

    Args:
        service: the Service of the AdapterDeployment; None if it has none.
        pods: the pods of all sets.
    """
    pods, agents = tuple(pods), tuple(agents)
    sets = [
        PodSet(set_number(body), body, build_fleet(_pods_of(set_number(body), pods), agents, pods))
        for body in sorted(deployments, key=set_number)
    ]
    selected = selected_set(service) if service is not None else None
    # A Service that selects no set there is was written by an earlier release, or by hand.
    serving = next((each for each in sets if each.number == selected), next(iter(sets), None))
    return PodSets(
        serving=serving,
        others=tuple(each for each in sets if each is not serving),
        switch=latest_switch(service) if service is not None else None,
        everyone=build_fleet(pods, agents),
    )


def _pods_of(number: int, pods: Iterable[Body]) -> tuple[Body, ...]:
    return tuple(pod for pod in pods if set_number(pod) == number)
