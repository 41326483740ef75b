"""The PodDisruptionBudget of serving pods: a drained node takes them one after the other."""

from .names import Owner, child_metadata
from .objects import KubernetesObject
from .serving_deployment import STAGE, selector_labels


def build_serving_disruption_budget(owner: Owner) -> KubernetesObject:
    """For more than one replica; with a single one it would forbid to drain its node."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": child_metadata(owner, STAGE),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector_labels(owner)}},
    }
