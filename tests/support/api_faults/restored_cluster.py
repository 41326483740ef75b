"""A control plane of one test, whose etcd is restored from a backup."""

import base64
import json
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunesmith_cluster.client import eventually
from tunesmith_cluster.cluster import Cluster, Shape
from tunesmith_cluster.controlplane import exists
from tunesmith_cluster.fake import ControlPlane

#: They hold versions of what is restored; whoever restores a cluster starts them anew.
CONTROLLERS = ("kube-controller-manager", "kube-scheduler", "kwok")
NODE = "gpu-0"
#: Writes that are under way while a backup is put in place.
MARGIN = 50
_NOTHING = base64.b64encode(b"/nothing").decode()


class RestorableCluster:
    """The cluster, and backups of its etcd.

    Attributes:
        server: the clients.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.server = ControlPlane(cluster.kubeconfig)
        self._cluster = cluster
        flags = Path(f"/proc/{self._pid('etcd')}/cmdline").read_text().split("\0")
        self._etcd = next(
            flag.partition("=")[2] for flag in flags if flag.startswith("--listen-client-urls=")
        )

    def _pid(self, name: str) -> int:
        return next(record.pid for record in self._cluster.processes.records() if record.name == name)

    def back_up(self, folder: Path) -> None:
        """Copy etcd's data as they are at this moment."""
        with self._cluster.processes.paused("etcd"):
            shutil.copytree(self._data, folder)

    def restore(self, folder: Path, caught_up: bool = False) -> None:
        """Put the data of a backup in place, and start all components.

        Args:
            caught_up: the present version is higher afterwards than it was before.
        """
        processes = self._cluster.processes
        before = self._version()
        stopped = {name: processes.stop(name, 0) for name in (*CONTROLLERS, "kube-apiserver", "etcd")}
        shutil.rmtree(self._data)
        shutil.copytree(folder, self._data)
        processes.start("etcd", stopped["etcd"], bound=True)
        eventually(self._version, what="etcd")
        processes.start("kube-apiserver", stopped["kube-apiserver"], bound=True)
        for _ in range(before + MARGIN - self._version() if caught_up else 0):
            _post(f"{self._etcd}/v3/kv/put", {"key": _NOTHING, "value": _NOTHING})
        eventually(lambda: exists(self.server.api, "/readyz"), 60, what="the API server")
        # The next kwok would wait until the lease of the former one has run out.
        self.server.api.delete(f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{NODE}")
        for name in CONTROLLERS:
            processes.start(name, stopped[name], bound=True)

    def _version(self) -> int:
        """etcd's present version; 0 while it does not answer."""
        try:
            return int(_post(f"{self._etcd}/v3/maintenance/status", {})["header"]["revision"])
        except OSError:
            return 0

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
        restorable.server.add_node(NODE)
        yield restorable
    finally:
        cluster.down()


def _post(url: str, body: dict[str, str]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as response:
        return json.load(response)
