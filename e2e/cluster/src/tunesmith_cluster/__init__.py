"""Local Kubernetes clusters for tests and demo: a control plane alone, or one with a node."""

from tunesmith_cluster.api import ApiClient, ApiError
from tunesmith_cluster.client import ClusterClient, KubectlError, eventually
from tunesmith_cluster.cluster import Cluster, Shape
from tunesmith_cluster.context import allowed_context
from tunesmith_cluster.engines import open_cluster
from tunesmith_cluster.errors import ClusterError
from tunesmith_cluster.fake import ControlPlane

__all__ = [
    "ApiClient",
    "ApiError",
    "Cluster",
    "ClusterClient",
    "ClusterError",
    "ControlPlane",
    "KubectlError",
    "Shape",
    "allowed_context",
    "eventually",
    "open_cluster",
]
