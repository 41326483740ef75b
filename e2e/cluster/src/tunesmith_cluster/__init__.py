"""Real Kubernetes clusters for tests and for the demo: a control plane alone, or one with a node for real pods."""

from tunesmith_cluster.api import ApiClient, ApiError
from tunesmith_cluster.cluster import Cluster, Shape
from tunesmith_cluster.context import allowed_context
from tunesmith_cluster.errors import ClusterError

__all__ = ["ApiClient", "ApiError", "Cluster", "ClusterError", "Shape", "allowed_context"]
