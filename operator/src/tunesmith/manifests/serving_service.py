"""Service for the clients of an AdapterDeployment."""

from .names import Component, Owner, child_labels, child_metadata
from .objects import KubernetesObject
from .serving_deployment import AGENT_PORT_NAME, selector_labels

PORT = 80


def serving_service_name(owner: Owner) -> str:
    """The AdapterDeployment's own name: clients write it down, so it must outlive the object."""
    return owner.metadata.name


def serving_url(owner: Owner) -> str:
    """URL for clients in the cluster."""
    return f"http://{serving_service_name(owner)}.{owner.metadata.namespace}.svc"


def build_serving_service(owner: Owner) -> KubernetesObject:
    """A ClusterIP Service of port 80 in front of the agents."""
    metadata = child_metadata(owner, Component.SERVING) | {"name": serving_service_name(owner)}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata | {"labels": child_labels(owner, Component.SERVING)},
        "spec": {
            "type": "ClusterIP",
            "selector": selector_labels(owner),
            "ports": [
                {"name": AGENT_PORT_NAME, "port": PORT, "targetPort": AGENT_PORT_NAME, "protocol": "TCP"}
            ],
        },
    }
