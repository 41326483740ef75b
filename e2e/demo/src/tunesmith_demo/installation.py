"""Helm installation of Tunesmith, and copies of local folders in a PersistentVolumeClaim."""

import json
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith_cluster.binaries import program
from tunesmith_cluster.client import ClusterClient

CHART = Path(__file__).resolve().parents[4] / "helm" / "tunesmith"
SYSTEM_NAMESPACE = "tunesmith-system"
RELEASE = "tunesmith"
INSTALL_TIMEOUT = "5m"


def helm(client: ClusterClient, *arguments: str, stdin: str | None = None) -> str:
    """Standard output of helm.

    Raises:
        RuntimeError: helm failed; with what it said.
    """
    command = [program("helm"), f"--kubeconfig={client.kubeconfig}", *arguments]
    result = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"helm {arguments[0]}: {result.stderr.strip()}")
    return result.stdout


def chart_values(images: Mapping[str, str]) -> dict[str, Any]:
    """Values that run these images, ``{"operator": ref, "trainer": ref, "serving": ref}``, and pull none."""
    repository, _, tag = images["operator"].rpartition(":")
    return {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"},
        "trainerImage": images["trainer"],
        "servingImage": images["serving"],
    }


def install_chart(
    client: ClusterClient, images: Mapping[str, str], values: Mapping[str, Any] | None = None
) -> None:
    """Install or upgrade the release in a namespace that enforces ``restricted``, and wait until it is up."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": SYSTEM_NAMESPACE, "labels": labels},
    }
    client.apply(namespace)
    merged = {**chart_values(images), **(values or {})}
    options = ["-n", SYSTEM_NAMESPACE, "--wait", "--timeout", INSTALL_TIMEOUT, "-f", "-"]
    helm(client, "upgrade", "--install", RELEASE, str(CHART), *options, stdin=json.dumps(merged))


def fill_claim(
    client: ClusterClient, namespace: str, claim: str, image: str, folder: Path, target: str
) -> None:
    """Copy a local folder into a claim as ``target``, through a pod that mounts it.

    The same way works on every cluster, whatever is behind the claim.
    """
    pod = _loader_pod(namespace, claim, image)
    name = pod["metadata"]["name"]
    client.apply(pod)
    try:
        client.kubectl(
            "-n", namespace, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=180s", timeout=200
        )
        _stream_folder(client, namespace, name, folder, target)
    finally:
        client.kubectl("-n", namespace, "delete", "pod", name, "--now", "--wait=true")


def _stream_folder(client: ClusterClient, namespace: str, pod: str, folder: Path, target: str) -> None:
    unpack = f"mkdir -p /volume/{target} && tar -x -C /volume/{target} -f -"
    command = [
        program("kubectl"),
        f"--kubeconfig={client.kubeconfig}",
        "-n",
        namespace,
        "exec",
        "-i",
        pod,
        "--",
    ]
    with (
        subprocess.Popen([*command, "sh", "-c", unpack], stdin=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdin, mode="w|") as archive,
    ):
        archive.add(folder, arcname=".", filter=_readable)
    if process.returncode:
        raise RuntimeError(
            f"could not copy {folder} into the claim: kubectl exec ended with {process.returncode}"
        )


def _readable(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Owner and times stay behind: whoever runs the serving pods must be able to read."""
    member.uid = member.gid = 0
    member.mode = 0o775 if member.isdir() else 0o664
    return member


def _loader_pod(namespace: str, claim: str, image: str) -> dict[str, Any]:
    context = {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 0,
        "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": "loader",
        "image": image,
        "command": ["sleep", "600"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "volume", "mountPath": "/volume"}],
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": context,
        "containers": [container],
        "volumes": [{"name": "volume", "persistentVolumeClaim": {"claimName": claim}}],
    }
    metadata = {"name": f"fill-{claim}", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
