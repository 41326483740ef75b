"""Service for the clients of an AdapterDeployment."""

from dataclasses import dataclass
from datetime import UTC, datetime

from .names import GROUP, SET_LABEL, Component, Owner, child_labels, child_metadata
from .objects import Body, KubernetesObject
from .serving_deployment import AGENT_PORT_NAME, FIRST_SET, set_labels

PORT = 80

_FORMER_ANNOTATION = f"{GROUP}/former-set"
_SWITCHED_ANNOTATION = f"{GROUP}/switched-at"


@dataclass(frozen=True, slots=True)
class Switch:
    """Latest change of the set of pods that a Service selects; written together with its selector.

    Attributes:
        former: number of the set that was selected before.
        time: the time of the change.
    """

    former: int
    time: datetime


def serving_service_name(owner: Owner) -> str:
    """The AdapterDeployment's own name: clients write it down, so it must outlive the object."""
    return owner.metadata.name


def serving_url(owner: Owner) -> str:
    """URL for clients in the cluster."""
    return f"http://{serving_service_name(owner)}.{owner.metadata.namespace}.svc"


def build_serving_service(
    owner: Owner, number: int = FIRST_SET, switch: Switch | None = None
) -> KubernetesObject:
    """A ClusterIP Service of port 80 in front of the agents of one set of pods.

    Args:
        number: number of the set.
        switch: the latest switch to another set, if there was one.
    """
    metadata = child_metadata(owner, Component.SERVING) | {"name": serving_service_name(owner)}
    if switch is not None:
        annotations = {
            _FORMER_ANNOTATION: str(switch.former),
            _SWITCHED_ANNOTATION: switch.time.isoformat(),
        }
        metadata["annotations"] = annotations
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata | {"labels": child_labels(owner, Component.SERVING)},
        "spec": {
            "type": "ClusterIP",
            # Clients of either family, where the cluster has both.
            "ipFamilyPolicy": "PreferDualStack",
            "selector": set_labels(owner, number),
            "ports": [
                {"name": AGENT_PORT_NAME, "port": PORT, "targetPort": AGENT_PORT_NAME, "protocol": "TCP"}
            ],
        },
    }


def selected_set(service: Body) -> int:
    """Number of the set of pods that an observed Service selects; the first one if its selector names none."""
    try:
        return int(service["spec"]["selector"][SET_LABEL])
    except (KeyError, ValueError):
        return FIRST_SET


def latest_switch(service: Body) -> Switch | None:
    """Latest switch to another set, as an observed Service tells it; None without one that can be read."""
    annotations = service["metadata"].get("annotations") or {}
    try:
        former = int(annotations[_FORMER_ANNOTATION])
        time = datetime.fromisoformat(annotations[_SWITCHED_ANNOTATION])
        return Switch(former, time if time.tzinfo else time.replace(tzinfo=UTC))
    except (KeyError, ValueError):
        return None
