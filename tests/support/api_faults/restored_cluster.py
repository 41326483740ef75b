"""A control plane of one test, whose etcd is restored from a backup."""

import base64
import json
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunesmith_cluster.client import eventually
from tunesmith_cluster.cluster import Cluster, Shape
from tunesmith_cluster.controlplane import exists
from tunesmith_cluster.fake import ControlPlane

#: They hold versions of what is restored; whoever restores a cluster starts them anew.
CONTROLLERS = ("kube-controller-manager", "kube-scheduler", "kwok")
GRACE_SECONDS = 1.0


class RestorableCluster:
    """The cluster, and backups of its etcd.

    Attributes:
        server: the clients.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.server = ControlPlane(cluster.kubeconfig)
        self._cluster = cluster

    def back_up(self, folder: Path) -> None:
        """Copy etcd's data as they are at this moment."""
        with self._cluster.processes.paused("etcd"):
            shutil.copytree(self._data, folder)

    def restore(self, folder: Path, later: int = 0) -> None:
        """Put the data of a backup in place, and start all components.

        Args:
            later: by how many the present version is higher than in the backup.
        """
        processes = self._cluster.processes
        stopped = {name: processes.stop(name, GRACE_SECONDS) for name in ("kube-apiserver", *CONTROLLERS)}
        etcd = processes.stop("etcd", GRACE_SECONDS)
        shutil.rmtree(self._data)
        shutil.copytree(folder, self._data)
        processes.start("etcd", etcd, bound=True)
        url = next(value for value in etcd if value.startswith("--listen-client-urls=")).partition("=")[2]
        eventually(lambda: _answers(url), what="etcd")
        processes.start("kube-apiserver", stopped.pop("kube-apiserver"), bound=True)
        _raise_version(url, later)
        eventually(lambda: exists(self.server.api, "/readyz"), 60, what="the API server")
        for name, command in stopped.items():
            processes.start(name, command, bound=True)

    @property
    def _data(self) -> Path:
        return self._cluster.state / "etcd"


@contextmanager
def restorable_cluster(folder: Path) -> Iterator[RestorableCluster]:
    """A control plane with one fake node, which ends with the block."""
    cluster = Cluster(Shape.CONTROL_PLANE, folder / "state", bound=True)
    cluster.up()
    try:
        restorable = RestorableCluster(cluster)
        restorable.server.add_node("gpu-0")
        yield restorable
    finally:
        cluster.down()


def _raise_version(url: str, later: int) -> None:
    """Write something of no interest so many times."""
    key = base64.b64encode(b"/raised").decode()
    for _ in range(later):
        _post(f"{url}/v3/kv/put", {"key": key, "value": key})


def _answers(url: str) -> bool:
    try:
        _post(f"{url}/v3/maintenance/status", {})
    except OSError:
        return False
    return True


def _post(url: str, body: dict[str, str]) -> None:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as response:
        response.read()
