"""Choice of cluster engine: this package, or kind if Docker is available."""

from pathlib import Path

from tunesmith_cluster.cluster import Cluster, Shape
from tunesmith_cluster.context import allowed_context, kubeconfig_from_environment
from tunesmith_cluster.kind import CONTEXT_PREFIX as KIND_PREFIX
from tunesmith_cluster.kind import KindCluster, docker_answers


def open_cluster(shape: Shape, state: Path | None = None) -> Cluster | KindCluster:
    """The cluster of this shape, running or not. With a node it is kind's where Docker answers."""
    if shape is Shape.NODE and state is None and docker_answers():
        return KindCluster()
    return Cluster(shape, state)


def open_test_cluster() -> Cluster | KindCluster:
    """The cluster with a node that tests use: the one of TUNESMITH_KUBECONFIG, or the default one.

    Raises:
        ClusterError: the kubeconfig's context is not one that tests may write to.
    """
    kubeconfig = kubeconfig_from_environment()
    if kubeconfig is None:
        return open_cluster(Shape.NODE)
    context = allowed_context(kubeconfig)
    if context.startswith(KIND_PREFIX):
        return KindCluster(context.removeprefix(KIND_PREFIX), kubeconfig)
    return Cluster(Shape.NODE, kubeconfig.parent)
