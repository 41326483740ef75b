"""NetworkPolicy of serving pods: who may send them requests, and who may read their metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

from .environment import ServingNetwork
from .names import Component, Owner, child_metadata
from .objects import KubernetesObject
from .serving_deployment import AGENT_PORT, MONITORING_PORT, serving_labels


def build_serving_network_policy(owner: Owner, network: ServingNetwork) -> KubernetesObject:
    """NetworkPolicy for incoming connections; outgoing ones stay open, as adapters come from anywhere.

    Kubelet's probes come from the node, which policies do not keep out. Agents of one AdapterDeployment reach each
    other.
    """
    labels = serving_labels(owner)
    clients = [{"podSelector": {"matchLabels": labels}}, *network.clients]
    ingress = [_rule(AGENT_PORT, clients)]
    if network.monitoring:
        ingress.append(_rule(MONITORING_PORT, network.monitoring))
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": child_metadata(owner, Component.SERVING),
        "spec": {
            "podSelector": {"matchLabels": labels},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        },
    }


def _rule(port: int, sources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One port for these sources; without any, Kubernetes would let all in."""
    return {"from": [dict(source) for source in sources], "ports": [{"port": port, "protocol": "TCP"}]}
