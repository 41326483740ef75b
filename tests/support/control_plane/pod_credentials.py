"""What pods need to speak to the operator: a token of their own, and the operator's authority."""

from typing import Any

from tunesmith_cluster.fake import ControlPlane


def issue_token(server: ControlPlane, pod: dict[str, Any], audience: str) -> str:
    """A token as the kubelet projects it into this pod."""
    metadata = pod["metadata"]
    bound = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
    spec = {"audiences": [audience], "boundObjectRef": bound}
    account = f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/default/token"
    token: str = server.api.create(account, {"spec": spec})["status"]["token"]
    return token


def read_authority(server: ControlPlane, namespace: str) -> str:
    """The certificate of the authority of an operator in this namespace."""
    template = '-o=go-template={{index .data "ca.crt" | base64decode}}'
    return server.kubectl("get", "secret", "tunesmith-tls", f"-n={namespace}", template)
