"""An autoscaler sets the number of serving pods through the scale subresource, and the operator follows."""

from pathlib import Path
from typing import Any

import yaml
from control_plane.restartable_operator import RestartableOperator
from custom_resources.manifest_cases import SERVING_EXAMPLES

from tunesmith.manifests.names import OWNER_UID_LABEL
from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane

KIND = "adapterdeployments.tunesmith.dev"


def example(name: str) -> dict[str, Any]:
    body: dict[str, Any] = yaml.safe_load((SERVING_EXAMPLES / name).read_text())
    return body


def replicas_of_the_deployment(server: ControlPlane, namespace: str) -> int | None:
    deployments = server.api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments")["items"]
    return deployments[0]["spec"]["replicas"] if deployments else None


def test_an_autoscaler_and_kubectl_scale_the_resource(server: ControlPlane, tmp_path: Path) -> None:
    namespace = server.namespace("scaled")
    resource = example("autoscaled.yaml")
    with RestartableOperator(server, tmp_path, namespace):
        server.apply(resource, namespace)
        eventually(lambda: replicas_of_the_deployment(server, namespace) == 1, what="one pod by default")
        # Without metrics an autoscaler still moves the target into its range.
        server.apply(example("hpa.yaml"), namespace)
        eventually(
            lambda: replicas_of_the_deployment(server, namespace) == 2, 60, what="the autoscaler's two pods"
        )
        server.apply(resource, namespace)
        assert server.get(KIND, "assistant", namespace)["spec"]["replicas"] == 2
        server.kubectl("scale", KIND, "assistant", "--replicas=3", f"--namespace={namespace}")
        eventually(lambda: replicas_of_the_deployment(server, namespace) == 3, what="three pods by hand")
        path = f"/apis/tunesmith.dev/v1alpha1/namespaces/{namespace}/adapterdeployments/assistant/scale"
        eventually(
            lambda: server.api.get(path)["status"]["replicas"] == 3, what="the pods in the scale subresource"
        )
        scale = server.api.get(path)
        selector = f"labelSelector={scale['status']['selector'].replace('=', '%3D')}"
        pods = server.api.get(f"/api/v1/namespaces/{namespace}/pods?{selector}")["items"]
        uid = server.get(KIND, "assistant", namespace)["metadata"]["uid"]
        assert [pod["metadata"]["labels"][OWNER_UID_LABEL] for pod in pods] == [uid] * 3
