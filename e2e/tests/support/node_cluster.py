"""Client of the cluster with a node, which also makes folders for volumes."""

from tunesmith_cluster.client import ClusterClient
from tunesmith_cluster.cluster import Cluster
from tunesmith_cluster.kind import KindCluster


class NodeCluster(ClusterClient):
    """A cluster that runs real pods. `engine` loads images and makes folders for volumes."""

    def __init__(self, engine: Cluster | KindCluster) -> None:
        super().__init__(engine.kubeconfig)
        self.engine = engine

    def add_claim(self, namespace: str, claim: str) -> None:
        """A claim on an empty folder of the node that honours fsGroup."""
        folder = self.engine.volume_folder(f"{namespace}-{claim}")
        self.add_volume(namespace, claim, folder, self.engine.node_name)
