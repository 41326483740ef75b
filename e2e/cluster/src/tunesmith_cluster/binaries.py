"""Programs of a cluster: built with Go at pinned versions into the cache, or installed from Debian."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tunesmith_cluster.errors import ClusterError
from tunesmith_cluster.paths import cache_dir
from tunesmith_cluster.report import say, stage

KUBERNETES_VERSION = "v1.35.4"
GO_VERSION = "1.26.8"
GO_MINIMUM = (1, 25)
GO_TOOLCHAIN = f"golang.org/toolchain@v0.0.1-go{GO_VERSION}.linux-amd64"

MULTICALL_SOURCE = Path(__file__).parents[2] / "multicall"
GITOPS_SOURCE = Path(__file__).parents[2] / "gitops"
KUEUE_SOURCE = Path(__file__).parents[2] / "kueue"
KUEUE_MODULE = "sigs.k8s.io/kueue"
MULTICALL_NAMES = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
)
GO_TOOLS = {
    "kwok": "sigs.k8s.io/kwok/cmd/kwok@v0.8.0",
    "helm": "helm.sh/helm/v3/cmd/helm@v3.22.0",
    "kind": "sigs.k8s.io/kind@v0.30.0",
    "coredns": "github.com/coredns/coredns@v1.15.0",
    "versitygw": "github.com/versity/versitygw/cmd/versitygw@v1.8.0",
    "registry": "github.com/distribution/distribution/v3/cmd/registry@v3.1.2",
    # In the long form of the tests alone.
    "cosign": "github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3",
    # Another operator, for benchmarks side by side.
    "trainer-controller-manager": "github.com/kubeflow/trainer/v2/cmd/trainer-controller-manager@v2.0.0",
}
DEBIAN_PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "modprobe": "kmod",
    "setpriv": "util-linux",
}
CNI_PLUGINS = Path("/usr/lib/cni")
CNI_PACKAGE = "containernetworking-plugins"
SERVICE_POLICY = Path("/usr/sbin/policy-rc.d")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class GoBuild:
    """One build. Go writes the first of the programs that it provides; the other names are links to it."""

    names: tuple[str, ...]
    arguments: tuple[str, ...]
    source: Path | None = None

    @property
    def folder(self) -> Path:
        """Folder of the programs, named by the hash of all their inputs."""
        digest = hashlib.sha256("\0".join((GO_VERSION, *self.arguments)).encode())
        for file in sorted(self.source.rglob("*")) if self.source else ():
            if file.is_file():
                digest.update(file.name.encode() + b"\0" + file.read_bytes())
        return cache_dir() / "bin" / f"{self.names[0]}-{digest.hexdigest()[:12]}"


def _linker_flags() -> str:
    package = "k8s.io/component-base/version"
    _, minor, _ = KUBERNETES_VERSION.split(".")
    values = {"gitVersion": KUBERNETES_VERSION, "gitMajor": "1", "gitMinor": minor}
    return " ".join(["-s -w", *(f"-X {package}.{name}={value}" for name, value in values.items())])


def go_builds() -> dict[str, GoBuild]:
    """Every build by the name of each program that it provides."""
    local = ("build", "-trimpath", "-ldflags")
    builds = [
        GoBuild(("multicall", *MULTICALL_NAMES), (*local, _linker_flags(), "."), MULTICALL_SOURCE),
        GoBuild(("pause",), (*local, "-s -w", "./pause"), MULTICALL_SOURCE),
        GoBuild(("probe",), (*local, "-s -w", "./probe"), MULTICALL_SOURCE),
        GoBuild(("gitops",), (*local, "-s -w", "."), GITOPS_SOURCE),
        GoBuild(("kueue",), (*local, "-s -w", f"{KUEUE_MODULE}/cmd/kueue"), KUEUE_SOURCE),
        *(
            GoBuild((name,), ("install", "-trimpath", "-ldflags", "-s -w", package))
            for name, package in GO_TOOLS.items()
        ),
    ]
    return {name: build for build in builds for name in build.names}


def program(name: str) -> str:
    """Path of a program, built first where it is missing.

    Raises:
        ClusterError: it is a Debian package that is not installed, or the build failed.
    """
    if name in DEBIAN_PACKAGES:
        return _debian_program(name)
    build = go_builds()[name]
    path = build.folder / name
    if not path.exists():
        _build(build)
    return str(path)


def kueue_manifests(place: str) -> list[dict[str, Any]]:
    """The objects of a file, or of the files of a folder, below ``config/components`` of Kueue's module.

    Raises:
        ClusterError: the module could not be had.
    """
    command = [find_go(), "mod", "download", "-json", KUEUE_MODULE]
    result = subprocess.run(command, cwd=KUEUE_SOURCE, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ClusterError(
            f"{' '.join(command)} ended with {result.returncode}:\n{result.stdout}{result.stderr}"
        )
    path = Path(json.loads(result.stdout)["Dir"], "config", "components", place)
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    return [body for file in files for body in yaml.safe_load_all(file.read_text()) if body]


def build_programs(names: Iterable[str]) -> None:
    """Build those of the programs that are missing, in this order.

    Raises:
        ClusterError: as `program`.
    """
    builds = go_builds()
    missing = list(
        dict.fromkeys(
            builds[name].names[0]
            for name in names
            if name in builds and not (builds[name].folder / name).exists()
        )
    )
    if missing:
        say(f"  cluster programs to build: {', '.join(missing)}")
    for name in missing:
        program(name)


def _debian_program(name: str) -> str:
    path = shutil.which(name, path=SYSTEM_PATH)
    if path is None:
        raise ClusterError(
            f"{name} is not installed. Run as root: apt-get install {DEBIAN_PACKAGES[name]} "
            f"(or, for everything at once: python -m tunesmith_cluster install)"
        )
    return path


def install_debian_packages() -> None:
    """Install what the node shape needs from Debian; nothing to do where it is there.

    Raises:
        ClusterError: something is missing and the caller is not root, or apt-get failed.
    """
    missing = {
        package for name, package in DEBIAN_PACKAGES.items() if shutil.which(name, path=SYSTEM_PATH) is None
    }
    if not CNI_PLUGINS.joinpath("bridge").exists():
        missing.add(CNI_PACKAGE)
    if shutil.which("go") is None:
        missing.add("golang-go")
    if not missing:
        return
    packages = sorted(missing)
    if os.geteuid() != 0:
        raise ClusterError(f"Packages are missing. Run as root: apt-get install {' '.join(packages)}")
    # apt fails where another process of ours uses it, such as the one that builds images.
    with stage("Debian packages"), locked(cache_dir() / "apt.lock"), _policy_against_services():
        _checked(["apt-get", "update", "-q"])
        _checked(["apt-get", "install", "-qy", "--no-install-recommends", *packages])


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; others wait. The lock falls with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _policy_against_services() -> Iterator[None]:
    """Keep the packages from starting their own etcd and containerd, which would take our ports."""
    if SERVICE_POLICY.exists():
        yield
        return
    SERVICE_POLICY.write_text("#!/bin/sh\nexit 101\n")
    SERVICE_POLICY.chmod(0o755)
    try:
        yield
    finally:
        SERVICE_POLICY.unlink()


def _checked(command: Sequence[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    result = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if result.returncode:
        tail = "\n".join(result.stdout.splitlines()[-20:])
        raise ClusterError(f"{' '.join(command)} ended with {result.returncode}:\n{tail}")


def _build(build: GoBuild) -> None:
    """Build into a draft folder and move it in place, one build at a time over all processes."""
    parent = build.folder.parent
    with locked(parent / "build.lock"):
        if build.folder.exists():
            return
        first = build.names[0]
        say(f"  building {first} (minutes, once)")
        with stage(f"build {first}"), tempfile.TemporaryDirectory(dir=parent) as draft_name:
            draft = Path(draft_name) / "build"
            draft.mkdir()
            _run_go(build, draft)
            for name in build.names[1:]:
                (draft / name).symlink_to(first)
            draft.rename(build.folder)


def _run_go(build: GoBuild, target: Path) -> None:
    verb, *rest = build.arguments
    command = [find_go(), verb, *(("-o", str(target / build.names[0])) if build.source else ()), *rest]
    # A GOROOT in the environment may belong to another Go than the one that was found.
    inherited = {name: value for name, value in os.environ.items() if name != "GOROOT"}
    environment = {**inherited, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOBIN": str(target)}
    result = subprocess.run(
        command, cwd=build.source, env=environment, capture_output=True, text=True, check=False
    )
    if result.returncode:
        tail = "\n".join(result.stderr.splitlines()[-20:])
        raise ClusterError(f"Building {build.names[0]} failed ({' '.join(command)}):\n{tail}")


def find_go() -> str:
    """A Go that is new enough: the installed one, or the toolchain module that an older one can download.

    Raises:
        ClusterError: there is no Go at all, or the toolchain could not be had.
    """
    installed = shutil.which("go")
    if installed is None:
        raise ClusterError(
            "Building the cluster's programs needs Go. Run as root: apt-get install golang-go "
            f"(any version: one before {GO_MINIMUM[0]}.{GO_MINIMUM[1]} downloads Go {GO_VERSION} by itself)"
        )
    if _go_version(installed) >= GO_MINIMUM:
        return installed
    return _toolchain(installed)


def _go_version(go: str) -> tuple[int, int]:
    output = subprocess.run(
        [go, "version"],
        env={**os.environ, "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    match = re.search(r"go(\d+)\.(\d+)", output)
    if match is None:
        raise ClusterError(f"{go} version answers {output!r}, which names no version")
    return int(match[1]), int(match[2])


def _toolchain(old_go: str) -> str:
    """Fetch Go as a module (checked by the checksum database), which every Go since 1.13 can do."""
    with stage(f"Go {GO_VERSION}"):
        result = subprocess.run(
            [old_go, "mod", "download", "-json", GO_TOOLCHAIN],
            env={**os.environ, "GOTOOLCHAIN": "local", "GO111MODULE": "on"},
            cwd=cache_dir(),
            capture_output=True,
            text=True,
            check=False,
        )
    answer = json.loads(result.stdout or "{}")
    if "Dir" not in answer:
        why = answer.get("Error") or result.stderr
        raise ClusterError(f"{old_go} is too old, and Go {GO_VERSION} could not be downloaded: {why}")
    folder = Path(answer["Dir"])
    for tool in (*folder.glob("bin/*"), *folder.glob("pkg/tool/*/*")):
        tool.chmod(0o755)
    return str(folder / "bin" / "go")
