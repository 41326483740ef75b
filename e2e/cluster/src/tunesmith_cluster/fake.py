"""Fake GPU nodes, and pods on them whose end a test decides."""

import datetime
from collections.abc import Mapping
from typing import Any

from tunesmith_cluster.api import ApiError, Document
from tunesmith_cluster.client import ClusterClient, eventually

STUCK_ANNOTATION = "kwok.tunesmith.dev/stuck"
MAX_TERMINATION_MESSAGE_BYTES = 4096
H100 = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.memory": "81559"}


def build_gpu_node(
    name: str, gpus: int, labels: dict[str, str], more: Mapping[str, str] | None = None
) -> Document:
    """A node that kwok keeps alive, labeled as NVIDIA's gpu-feature-discovery labels real ones.

    Args:
        more: resources that differ from those of one machine.
    """
    resources = {"cpu": "64", "memory": "512Gi", "ephemeral-storage": "1Ti", "pods": "1000", **(more or {})}
    if gpus:
        resources["nvidia.com/gpu"] = str(gpus)
        labels = {"nvidia.com/gpu.present": "true", "nvidia.com/gpu.count": str(gpus), **H100, **labels}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                **labels,
            },
        },
        "status": {"capacity": resources, "allocatable": resources},
    }


def build_finished_status(pod: Document, ends: dict[str, dict[str, Any]], now: str) -> Document:
    """Status of a pod whose containers ended as `ends` says (terminated state by name); others end with 0."""
    statuses = {
        key: [_ended(status, ends, now) for status in pod["status"].get(key, ())]
        for key in ("containerStatuses", "initContainerStatuses")
    }
    failed = any(status["state"]["terminated"]["exitCode"] for status in statuses["containerStatuses"])
    reason = "PodFailed" if failed else "PodCompleted"
    replaced = {
        kind: {"type": kind, "status": "False", "reason": reason, "lastTransitionTime": now}
        for kind in ("Ready", "ContainersReady")
    }
    conditions = [replaced.get(condition["type"], condition) for condition in pod["status"]["conditions"]]
    return {"phase": "Failed" if failed else "Succeeded", "conditions": conditions, **statuses}


def _ended(status: Document, ends: dict[str, dict[str, Any]], now: str) -> Document:
    running = status["state"].get("running")
    if running is None:
        return status
    times = {"startedAt": running["startedAt"], "finishedAt": now}
    terminated = {"exitCode": 0, "reason": "Completed", **times, **ends.get(status["name"], {})}
    return {**status, "ready": False, "started": False, "state": {"terminated": terminated}}


class ControlPlane(ClusterClient):
    """Cluster with fake nodes: pods are scheduled and run, and end when and as the test decides."""

    def add_node(
        self,
        name: str,
        *,
        gpus: int = 8,
        labels: dict[str, str] | None = None,
        resources: Mapping[str, str] | None = None,
    ) -> None:
        """Add a fake node and wait until it is Ready. Labels and resources replace those of a machine with H100s."""
        self.api.create("/api/v1/nodes", build_gpu_node(name, gpus, labels or {}, resources))
        eventually(lambda: self._accepts_pods(name), what=f"node {name} to get Ready")

    def wait_for_pod(self, namespace: str, selector: str, *, timeout: float = 30) -> Document:
        """First pod that matches a label selector and runs."""
        path = f"/api/v1/namespaces/{namespace}/pods?labelSelector={selector}"

        def running() -> Document | None:
            pods = self.api.get(path)["items"]
            return next((pod for pod in pods if pod["status"].get("phase") == "Running"), None)

        return eventually(running, timeout, what=f"a running pod with {selector} in {namespace}")

    def finish_pod(
        self,
        namespace: str,
        name: str,
        exit_code: int = 0,
        message: str = "",
        *,
        container: str | None = None,
        reason: str | None = None,
    ) -> None:
        """End a running pod: `container` (default: the first) with the exit code and termination message.

        `reason` is the kubelet's word, such as OOMKilled; by default Completed or Error.

        Raises:
            ValueError: the message is longer than a kubelet passes on.
            TimeoutError: the pod did not start running.
        """
        if len(message.encode()) > MAX_TERMINATION_MESSAGE_BYTES:
            raise ValueError(f"a kubelet cuts termination messages at {MAX_TERMINATION_MESSAGE_BYTES} bytes")
        pod = eventually(lambda: self._running_pod(namespace, name), what=f"pod {name} to run")
        container = container or pod["spec"]["containers"][0]["name"]
        end: dict[str, Any] = {
            "exitCode": exit_code,
            "reason": reason or ("Error" if exit_code else "Completed"),
        }
        if message:
            end["message"] = message
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = build_finished_status(pod, {container: end}, now)
        self.api.merge(f"{_pod_path(namespace, name)}/status", {"status": status})

    def finish_container(
        self, namespace: str, name: str, container: str, exit_code: int, message: str
    ) -> None:
        """End one container of a running pod, which its other containers keep alive.

        Raises:
            TimeoutError: the pod did not start running.
        """
        pod = eventually(lambda: self._running_pod(namespace, name), what=f"pod {name} to run")
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        end = {"exitCode": exit_code, "reason": "Error" if exit_code else "Completed", "message": message}
        statuses = [
            _ended(status, {container: end}, now) if status["name"] == container else status
            for status in pod["status"]["containerStatuses"]
        ]
        self.api.merge(f"{_pod_path(namespace, name)}/status", {"status": {"containerStatuses": statuses}})

    def set_pod_waiting(self, namespace: str, name: str, reason: str, message: str) -> None:
        """Make a pod look as if its containers could not start, for example with ImagePullBackOff."""
        pod = eventually(lambda: self._running_pod(namespace, name), what=f"pod {name} to run")
        state = {"waiting": {"reason": reason, "message": message}}
        statuses = [
            {**status, "ready": False, "started": False, "state": state}
            for status in pod["status"]["containerStatuses"]
        ]
        change = {"phase": "Pending", "containerStatuses": statuses}
        self.api.merge(f"{_pod_path(namespace, name)}/status", {"status": change})

    def evict_pod(self, namespace: str, name: str) -> None:
        """Evict a pod as a drain does: it gets the condition DisruptionTarget and ends with 143."""
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        self.api.create(f"{_pod_path(namespace, name)}/eviction", body)

    def hold_pod(self, namespace: str, name: str) -> None:
        """Keep a pod Terminating for ever once it is deleted, as on a lost node. `release_pod` lets it go."""
        self._annotate(namespace, name, "true")

    def release_pod(self, namespace: str, name: str) -> None:
        """Let a pod end that `hold_pod` keeps Terminating."""
        self._annotate(namespace, name, None)

    def _annotate(self, namespace: str, name: str, value: str | None) -> None:
        change = {"metadata": {"annotations": {STUCK_ANNOTATION: value}}}
        self.api.merge(_pod_path(namespace, name), change)

    def _accepts_pods(self, name: str) -> bool:
        node = self.api.get(f"/api/v1/nodes/{name}")
        conditions = {item["type"]: item["status"] for item in node["status"].get("conditions", ())}
        return conditions.get("Ready") == "True" and not node["spec"].get("taints")

    def _running_pod(self, namespace: str, name: str) -> Document | None:
        try:
            pod = self.api.get(_pod_path(namespace, name))
        except ApiError:
            return None
        return pod if pod["status"].get("phase") == "Running" else None


def _pod_path(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods/{name}"
