"""One process in a built image, confined as a pod of the ``restricted`` level: no cluster and no containerd needed.

User and environment are the image's own, unless another user is given. The root is read-only, there are no
capabilities, and only the mounts given are there beside it. The network is the machine's, so that servers on its
loopback can be reached.
"""

import json
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .buildah import buildah_command
from .cache import cache_dir
from .run import BuildError, output, run

_SYSTEM_MOUNTS: tuple[dict[str, Any], ...] = (
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
    {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance"]},
    {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "shm",
        "options": ["nosuid", "nodev", "noexec", "mode=1777", "size=64m"],
    },
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "ro"]},
    {
        "destination": "/sys/fs/cgroup",
        "type": "cgroup",
        "source": "cgroup",
        "options": ["nosuid", "noexec", "ro"],
    },
)
_MASKED_PATHS = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")
_NAMESPACES = ("pid", "mount", "ipc", "uts")


@dataclass(frozen=True)
class Mount:
    """A file or folder of this machine at a path in the container."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True)
class Process:
    """Process to run in a container.

    Attributes:
        environment: variables beside the image's own, and before them.
        groups: groups beside the image's own, such as a pod's fsGroup.
        user: another user than the image's, in group 0, as a namespace may assign one.
    """

    command: Sequence[str]
    mounts: Sequence[Mount] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    groups: Sequence[int] = ()
    user: int | None = None


@dataclass(frozen=True)
class ContainerImage:
    """The unpacked root of an image, and its configuration: ``User``, ``Env``, ``WorkingDir``, ``Entrypoint``."""

    root: Path
    config: Mapping[str, Any]

    def run(self, process: Process, log: Path, timeout: float) -> int:
        """Run a process to its end with its output in the file `log`; return its exit code.

        Raises:
            subprocess.TimeoutExpired: it took longer; it was killed.
        """
        name = f"tunesmith-{uuid.uuid4().hex}"
        with TemporaryDirectory(prefix="tunesmith-container-") as bundle, log.open("wb") as file:
            specification = build_specification(self.root, self.config, process)
            (Path(bundle) / "config.json").write_text(json.dumps(specification))
            command = _runtime("run", f"--bundle={bundle}", name)
            container = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            )
            try:
                return container.wait(timeout)
            finally:
                if container.poll() is None:
                    run(_runtime("delete", "--force", name))
                    container.wait()


@contextmanager
def open_image(ref: str) -> Iterator[ContainerImage]:
    """A built image with its root mounted on this machine while the block runs.

    Raises:
        BuildError: buildah does not have the image, or may not mount it.
    """
    description = output(buildah_command("inspect", "--type=image", ref))
    if not description:
        raise BuildError(f"{ref} is not built, or buildah can't read it; it needs root")
    container = output(buildah_command("from", "--pull-never", ref))
    try:
        root = output(buildah_command("mount", container))
        if not root:
            raise BuildError(f"buildah can't mount {ref}; it needs root")
        yield ContainerImage(Path(root), json.loads(description)["OCIv1"]["config"])
    finally:
        run(buildah_command("rm", container))


def build_specification(root: Path, config: Mapping[str, Any], process: Process) -> dict[str, Any]:
    """The OCI runtime's configuration of a container."""
    user, _, group = (config["User"] if process.user is None else f"{process.user}:0").partition(":")
    variables = dict(pair.split("=", 1) for pair in config["Env"]) | dict(process.environment)
    no_capabilities: dict[str, list[str]] = {
        kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")
    }
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(root), "readonly": True},
        "hostname": "container",
        "process": {
            "user": {"uid": int(user), "gid": int(group), "additionalGids": list(process.groups)},
            "args": list(process.command),
            "env": [f"{name}={value}" for name, value in variables.items()],
            "cwd": config["WorkingDir"],
            "capabilities": no_capabilities,
            "noNewPrivileges": True,
        },
        "mounts": [*_SYSTEM_MOUNTS, *map(_bind, process.mounts)],
        "linux": {
            "namespaces": [{"type": kind} for kind in _NAMESPACES],
            "maskedPaths": list(_MASKED_PATHS),
        },
    }


def _bind(mount: Mount) -> dict[str, Any]:
    options = ["rbind", "nosuid", "nodev", "rw" if mount.writable else "ro"]
    return {"destination": mount.target, "type": "bind", "source": str(mount.source), "options": options}


def _runtime(verb: str, *arguments: str) -> list[str]:
    """runc, as in a node's containerd, with a record of its own of what runs."""
    state = cache_dir() / "images" / "runc"
    return ["runc", f"--root={state}", verb, *arguments]
