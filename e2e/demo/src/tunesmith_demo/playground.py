"""Cluster for demo and end-to-end tests: own cluster with a node, or kind with Docker."""

from collections.abc import Sequence
from pathlib import Path

from tunesmith_cluster.client import ClusterClient
from tunesmith_cluster.cluster import Cluster, Shape
from tunesmith_cluster.engines import open_cluster
from tunesmith_cluster.images import ImageStore
from tunesmith_cluster.kind import PROGRAMS as KIND_PROGRAMS
from tunesmith_cluster.kind import KindCluster
from tunesmith_cluster.node import NODE_NAME, socket_path
from tunesmith_cluster.node import PROGRAMS as NODE_PROGRAMS
from tunesmith_cluster.volumes import STORAGE_CLASS, build_storage_class, build_volume
from tunesmith_images.build import build_images
from tunesmith_images.catalog import CPU_IMAGES, REGISTRY
from tunesmith_images.container import open_image
from tunesmith_images.load import load_image
from tunesmith_images.model import ensure_model
from tunesmith_images.run import output, run

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
VOLUME_SIZE = "20Gi"


class Playground:
    """One cluster with a node, and Tunesmith's images on it; without one given, the demo's own."""

    def __init__(self, cluster: Cluster | KindCluster | None = None) -> None:
        self.cluster = cluster or open_cluster(Shape.NODE)

    def up(self) -> ClusterClient:
        """Start the cluster, unless it already runs.

        Raises:
            tunesmith_cluster.errors.ClusterError: it can't be started; with the reason.
        """
        self.cluster.up()
        return ClusterClient(self.cluster.kubeconfig)

    def down(self) -> None:
        """Remove the cluster and all that ran on it."""
        self.cluster.down()

    def build(self) -> dict[str, str]:
        """Build the images that are not there yet; their names by ``operator``, ``trainer``, ``serving``."""
        return dict(build_images(CPU_IMAGES).refs)

    @property
    def programs(self) -> tuple[str, ...]:
        """Programs that the cluster and the chart's installation need."""
        own = KIND_PROGRAMS if isinstance(self.cluster, KindCluster) else NODE_PROGRAMS
        return (*own, "helm")

    def make_model(self, trainer: str) -> Path:
        """The folder of the base model, converted in the trainer image unless Docker holds that."""
        if isinstance(self.cluster, KindCluster):
            return ensure_model()
        with open_image(trainer) as image:
            return ensure_model(image)

    def load(self, images: Sequence[str]) -> None:
        """Hand the images to the cluster's node."""
        if isinstance(self.cluster, KindCluster):
            for image in images:
                self.cluster.load_built_image(image)
            return
        ctr = ["ctr", "--address", str(socket_path(self.cluster.state)), "--namespace", "k8s.io"]
        for image in images:
            load_image(image, ctr)
        self._forget_older(ctr, images)

    def name_by_digest(self, image: str) -> str:
        """Name of a loaded image by its digest, under which the node has it from now on; empty with kind."""
        if isinstance(self.cluster, KindCluster):
            return ""
        images = ImageStore(socket_path(self.cluster.state))
        name = f"{image.rpartition(':')[0]}@{images.digests()[image]}"
        images.ctr("images", "tag", "--force", image, name)
        return name

    @staticmethod
    def _forget_older(ctr: Sequence[str], images: Sequence[str]) -> None:
        """Remove images of earlier builds: they take gigabytes each, and the node's store outlives the cluster."""
        present = output([*ctr, "images", "list", "--quiet"]).split()
        older = [name for name in present if name.startswith(f"{REGISTRY}/") and name not in images]
        if older:
            run([*ctr, "images", "remove", *older])

    def provide_volumes(
        self,
        client: ClusterClient,
        namespace: str,
        claims: Sequence[str],
        access_mode: str = "ReadWriteOnce",
    ) -> None:
        """A default StorageClass, and a volume on the node for each of the claims to come; kind brings its own."""
        if isinstance(self.cluster, KindCluster):
            return
        storage_class = build_storage_class()
        storage_class["metadata"]["annotations"] = {DEFAULT_CLASS: "true"}
        volumes = [
            build_volume(
                namespace,
                claim,
                str(self.cluster.volume_folder(f"{namespace}-{claim}")),
                NODE_NAME,
                VOLUME_SIZE,
                access_mode,
            )
            for claim in claims
        ]
        self._remove_released(client)
        client.apply([storage_class, *volumes])

    def _remove_released(self, client: ClusterClient) -> None:
        """Delete released volumes, which accept no new claim; their folders stay."""
        for volume in client.api.get("/api/v1/persistentvolumes")["items"]:
            if (
                volume["status"]["phase"] == "Released"
                and volume["spec"]["storageClassName"] == STORAGE_CLASS
            ):
                client.kubectl("delete", "persistentvolume", volume["metadata"]["name"])
