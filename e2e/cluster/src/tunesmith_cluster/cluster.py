"""Life cycle of one cluster, from `up` to `down`."""

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tunesmith_cluster import controlplane, host, node
from tunesmith_cluster.binaries import program
from tunesmith_cluster.context import CONTEXT_PREFIX
from tunesmith_cluster.controlplane import LOOPBACK, LOOPBACK_IPV6, IPFamilies, Setting
from tunesmith_cluster.errors import ClusterError
from tunesmith_cluster.images import ImageStore
from tunesmith_cluster.paths import default_state
from tunesmith_cluster.processes import ProcessTable, log_tail
from tunesmith_cluster.report import say, stage

STOP_GRACE = 5.0


class Shape(StrEnum):
    """Shape of a cluster: control plane alone, or with a node that runs pods."""

    CONTROL_PLANE = "control-plane"
    NODE = "node"


@dataclass(frozen=True)
class Status:
    """Status of a cluster; `dead` has the name of each dead component and the end of its log."""

    shape: Shape
    running: list[str]
    dead: dict[str, str]


class Cluster:
    """Cluster identified by its state folder, which holds all its files; `down` removes the folder.

    `bound` clusters end with the process that started them, whatever ends that. A cluster with a node has IPv4 alone.
    """

    def __init__(
        self,
        shape: Shape,
        state: Path | None = None,
        *,
        bound: bool = False,
        families: IPFamilies = IPFamilies.IPV4,
    ) -> None:
        self.shape = shape
        self.families = families
        self.state = (state or default_state(shape)).absolute()
        self.bound = bound
        self.processes = ProcessTable(self.state)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.state / "kubeconfig"

    @property
    def node_name(self) -> str:
        """Name of the only real node, in the shape that has one."""
        return node.NODE_NAME

    @property
    def logs(self) -> Path:
        """Folder of the components' logs."""
        return self.state / "logs"

    def up(self) -> None:
        """Start the cluster; returns at once where it already runs. What was started ends if anything fails.

        Raises:
            ClusterError: a program is missing or a component did not start; ends with the tail of its log.
        """
        with self._locked():
            if self._runs():
                say(f"the {self.shape} cluster already runs: KUBECONFIG={self.kubeconfig}")
                return
            self._remove()
            started = time.monotonic()
            say(f"starting a {self.shape} cluster; logs in {self.logs}")
            try:
                self._start()
            except BaseException:
                self._stop()
                raise
            (self.state / "ready").touch()
            say(f"ready after {time.monotonic() - started:.1f} s: KUBECONFIG={self.kubeconfig}")

    def down(self) -> None:
        """End the recorded processes, undo what was changed on the machine and remove the state folder."""
        if not self.state.exists():
            say(f"there is no {self.shape} cluster in {self.state}")
            return
        with self._locked(), stage("stop"):
            self._remove()

    def status(self) -> Status:
        """Status with running and dead components."""
        dead = {record.name: log_tail(record.log) for record in self.processes.dead()}
        names = [record.name for record in self.processes.records()]
        return Status(self.shape, [name for name in names if name not in dead], dead)

    def load_image(self, archive: Path) -> list[str]:
        """Import an OCI archive into the node, unless its images are there already; returns their names."""
        return ImageStore(node.socket_path(self.state)).load(archive)

    def volume_folder(self, name: str) -> Path:
        """A folder of the node for a `local` volume. It goes with the cluster."""
        folder = self.state / "volumes" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def _has_node(self) -> bool:
        return self.shape is Shape.NODE

    @property
    def _loopback(self) -> str:
        return LOOPBACK_IPV6 if self.families is IPFamilies.IPV6 else LOOPBACK

    def _start(self) -> None:
        self.state.mkdir(parents=True, mode=0o700)
        for name in node.PROGRAMS if self._has_node else controlplane.PROGRAMS:
            program(name)
        if self._has_node:
            node.check_machine(self.state)
            host.prepare_host(self.state)
        etcd_port, api_port = controlplane.free_ports(2)
        setting = Setting(
            state=self.state,
            context=f"{CONTEXT_PREFIX}{self.shape}",
            address=host.NODE_ADDRESS if self._has_node else self._loopback,
            etcd_port=etcd_port,
            api_port=api_port,
            processes=self.processes,
            bound=self.bound,
            families=self.families,
        )
        authority = controlplane.write_credentials(setting)
        controlplane.start_control_plane(setting, authority)
        if self._has_node:
            node.start_node(setting, authority)
        else:
            controlplane.start_kwok(setting)
        self._check_alive()

    def _check_alive(self) -> None:
        """Some components have no sign of readiness but that they go on running."""
        for name, tail in self.status().dead.items():
            raise ClusterError(f"{name} ended soon after its start. The end of its log:\n{tail}")

    def _runs(self) -> bool:
        return (self.state / "ready").exists() and not self.processes.dead()

    def _stop(self) -> None:
        """End all processes and undo what was changed on the machine; the logs stay."""
        (self.state / "ready").unlink(missing_ok=True)
        if self._has_node:
            self.processes.stop_all(STOP_GRACE, keep=node.CONTAINERD)
            node.remove_containers_if_possible(self.state)
        self.processes.stop_all(STOP_GRACE)
        if self._has_node:
            host.restore_host(self.state)

    def _remove(self) -> None:
        self._stop()
        if self.state.exists():
            shutil.rmtree(self.state)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One `up` or `down` at a time. The lock lies beside the state, which `down` removes."""
        self.state.parent.mkdir(parents=True, exist_ok=True)
        with self.state.with_name(f"{self.state.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
