"""Cluster with a node by kind, where Docker is available; not tested yet."""

import json
import shutil
import subprocess
from pathlib import Path

from tunesmith_cluster.binaries import program
from tunesmith_cluster.cluster import Shape, Status
from tunesmith_cluster.errors import ClusterError
from tunesmith_cluster.images import read_references
from tunesmith_cluster.paths import default_state
from tunesmith_cluster.report import say, stage

CONTEXT_PREFIX = "kind-"
DEFAULT_NAME = "tunesmith"
PROGRAMS = ("kind", "kubectl")


def docker_answers() -> bool:
    """True if this user can use Docker; its client alone is not enough."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


class KindCluster:
    """A kind cluster with the same interface as `Cluster`."""

    shape = Shape.NODE

    def __init__(self, name: str = DEFAULT_NAME, kubeconfig: Path | None = None) -> None:
        self._name = name
        self.state = default_state(f"kind-{name}")
        self.kubeconfig = kubeconfig or self.state / "kubeconfig"

    @property
    def node_name(self) -> str:
        """Name of the only node, and of its Docker container."""
        return f"{self._name}-control-plane"

    @property
    def logs(self) -> Path:
        """Folder that `kind export logs` fills."""
        return self.state / "logs"

    def up(self) -> None:
        """Create the cluster where it is missing."""
        if self._name in _checked([program("kind"), "get", "clusters"]).split():
            return
        say(
            "Docker answers, so kind makes the cluster. This way has never been tried: please report how it goes."
        )
        self.state.mkdir(parents=True, exist_ok=True)
        with stage("kind create cluster"):
            self._kind("create", "cluster", f"--kubeconfig={self.kubeconfig}", "--wait=180s")

    def down(self) -> None:
        """Delete the cluster."""
        with stage("kind delete cluster"):
            self._kind("delete", "cluster", f"--kubeconfig={self.kubeconfig}")
        shutil.rmtree(self.state, ignore_errors=True)

    def status(self) -> Status:
        """True if the node's container runs."""
        result = subprocess.run(
            ["docker", "inspect", self.node_name], capture_output=True, text=True, check=False
        )
        containers = json.loads(result.stdout or "[]")
        running = [self.node_name] if containers and containers[0]["State"]["Running"] else []
        dead = {} if running or not containers else {self.node_name: containers[0]["State"]["Error"]}
        return Status(self.shape, running, dead)

    def load_image(self, archive: Path) -> list[str]:
        """Import an image archive into the node; returns the names of its images."""
        with stage(f"load {archive.name}"):
            self._kind("load", "image-archive", str(archive))
        return list(read_references(archive))

    def load_built_image(self, name: str) -> None:
        """Hand an image that Docker built to the node."""
        with stage(f"load {name}"):
            self._kind("load", "docker-image", name)

    def volume_folder(self, name: str) -> Path:
        """A folder inside the node for a `local` volume."""
        folder = Path("/var/local/tunesmith") / name
        _checked(["docker", "exec", self.node_name, "mkdir", "-p", str(folder)])
        return folder

    def _kind(self, *arguments: str) -> None:
        _checked([program("kind"), *arguments, f"--name={self._name}"])


def _checked(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ClusterError(f"{' '.join(command)} (clusters of kind are untried): {result.stderr.strip()}")
    return result.stdout
