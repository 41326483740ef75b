"""An AdapterDeployment on a real API server, its operator, and the pod that an agent of a test speaks for."""

import json
from pathlib import Path
from typing import Any

from agents.scripted_agent import ScriptedAgent
from control_plane.cluster_runs import condition
from control_plane.restartable_operator import RestartableOperator

from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane
from tunesmith_contract.layout import TOKEN_AUDIENCE

KIND = "adapterdeployments.tunesmith.dev"
ROLLOUT = {
    "steps": [{"weight": 50, "pause": "3s"}, {"weight": 100}],
    "analysis": {"interval": "1s", "minimumRequests": 10},
}


class Serving:
    """One AdapterDeployment named ``ad`` in a namespace of its own, which an operator watches; it has one pod."""

    def __init__(self, server: ControlPlane, folder: Path, operator: RestartableOperator) -> None:
        self.server = server
        self.namespace = server.namespace("serving")
        for claim in ("artifacts", "models"):
            server.add_volume(self.namespace, claim, folder, "gpu-0")
        self.operator = operator

    def apply(self, adapter: dict[str, Any], **fields: Any) -> None:
        """Apply the resource with this adapter, and more fields of its specification."""
        spec: dict[str, Any] = {
            "baseModel": {"uri": "pvc://models/base"},
            "engine": {"gpus": 1},
            "artifactVolumes": [{"claim": "artifacts"}],
            "adapters": [adapter | {"rollout": ROLLOUT}],
        } | fields
        body = {
            "apiVersion": "tunesmith.dev/v1alpha1",
            "kind": "AdapterDeployment",
            "metadata": {"name": "ad"},
        }
        self.server.apply(body | {"spec": spec}, self.namespace)

    @property
    def status(self) -> dict[str, Any]:
        """The status as it stands now."""
        status: dict[str, Any] = self.server.get(KIND, "ad", self.namespace).get("status", {})
        return status

    def condition(self, kind: str) -> dict[str, Any]:
        """One condition as it stands now; empty when it is not there."""
        return condition(self.status, kind)

    def true_conditions(self) -> set[str]:
        """Types of the conditions that are true now."""
        return {each["type"] for each in self.status.get("conditions", ()) if each["status"] == "True"}

    def sets(self) -> list[tuple[int, str]]:
        """Number and role of each set of pods in status."""
        return [(each["number"], each["role"]) for each in self.status.get("sets", ())]

    def act(self, verb: str, **fields: str) -> None:
        """Annotate the resource with this action, as a person does."""
        action = json.dumps({"id": f"id-{verb}", "adapter": "expenses", "verb": verb, **fields})
        scope = [f"--namespace={self.namespace}", "--overwrite"]
        self.server.kubectl("annotate", *scope, "adapterdeployment", "ad", f"tunesmith.dev/action={action}")

    def adapter(self) -> dict[str, Any]:
        """The status of the only alias."""
        return next(iter(self.status.get("adapters", ())), {})

    def wait(self, phase: str, digest: str, timeout: float = 30) -> dict[str, Any]:
        """The adapter's status once it is in this phase with this artifact stable."""

        def reached() -> dict[str, Any] | None:
            adapter = self.adapter()
            stable = adapter.get("stable", {}).get("digest")
            return adapter if (adapter.get("phase"), stable) == (phase, digest) else None

        try:
            return eventually(reached, timeout, what=f"phase {phase} with {digest} stable")
        except TimeoutError as error:
            error.add_note(json.dumps(self.status))
            raise

    def remembered_artifacts(self) -> set[str]:
        """Names of the artifacts whose versions have a ControllerRevision."""
        revisions = self.server.api.get(f"/apis/apps/v1/namespaces/{self.namespace}/controllerrevisions")
        return {revision["data"]["uri"].rpartition("/")[2] for revision in revisions["items"]}

    def pod_uids(self) -> set[str]:
        """The pods there are."""
        pods = self.server.api.get(f"/api/v1/namespaces/{self.namespace}/pods")["items"]
        return {pod["metadata"]["uid"] for pod in pods}

    def pod_names(self) -> set[str]:
        """Names of the pods there are."""
        pods = self.server.api.get(f"/api/v1/namespaces/{self.namespace}/pods")["items"]
        return {pod["metadata"]["name"] for pod in pods}

    @property
    def config_maps_path(self) -> str:
        """Where the ConfigMaps of the namespace are."""
        return f"/api/v1/namespaces/{self.namespace}/configmaps"

    def config_maps(self, selector: str) -> list[dict[str, Any]]:
        """The ConfigMaps that a label selects."""
        found: list[dict[str, Any]]
        found = self.server.api.get(f"{self.config_maps_path}?labelSelector={selector}")["items"]
        return found

    def event_reasons(self) -> set[str]:
        """Reasons of all events of the namespace."""
        told = self.server.api.get(f"/api/v1/namespaces/{self.namespace}/events")["items"]
        return {event["reason"] for event in told}

    def wipe_status(self) -> None:
        """As if it had never been written."""
        path = f"/apis/tunesmith.dev/v1alpha1/namespaces/{self.namespace}/adapterdeployments/ad/status"
        self.server.api.merge(path, {"status": None})

    def pod(self, selector: str = "tunesmith.dev/stage=serving") -> tuple[str, str]:
        """Name and UID of the pod."""
        pod = self.server.wait_for_pod(self.namespace, selector, timeout=60)
        return pod["metadata"]["name"], pod["metadata"]["uid"]

    def token(self, pod: tuple[str, str] | None = None) -> str:
        """What kubelet would project into the pod."""
        name, uid = pod or self.pod()
        bound = ["--bound-object-kind=Pod", f"--bound-object-name={name}", f"--bound-object-uid={uid}"]
        scope = [f"--namespace={self.namespace}", f"--audience={TOKEN_AUDIENCE}"]
        return self.server.kubectl("create", "token", "default", *scope, *bound).strip()

    def selected_pods(self) -> set[str]:
        """Names of the pods that the Service selects."""
        selector = self.server.get("service", "ad", self.namespace)["spec"]["selector"]
        labels = "%2C".join(f"{key}%3D{value}" for key, value in selector.items())
        path = f"/api/v1/namespaces/{self.namespace}/pods?labelSelector={labels}"
        return {pod["metadata"]["name"] for pod in self.server.api.get(path)["items"]}

    def agent(self, selector: str = "tunesmith.dev/stage=serving") -> ScriptedAgent:
        """An agent of the pod that follows a script; it begins with its block."""
        pod = self.pod(selector)
        url = f"https://127.0.0.1:{self.operator.tls_port}"
        host_name, authority, token = self.operator.host_name, self.authority(), self.token(pod)
        return ScriptedAgent(url, host_name, authority, token, self.namespace, "ad", pod)

    def authority(self) -> str:
        """The operator's authority, as the pod gets it."""
        maps = self.server.api.get(f"/api/v1/namespaces/{self.namespace}/configmaps")["items"]
        authority: str = next(found["data"]["ca.crt"] for found in maps if "desired.json" in found["data"])
        return authority
