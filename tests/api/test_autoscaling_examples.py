"""The examples of autoscalers name the example that they scale, and a metric that agents have."""

from typing import Any

import pytest
import yaml
from custom_resources.manifest_cases import SERVING_EXAMPLES

from tunesmith.api import GROUP, VERSION, AdapterDeployment


def load(name: str) -> dict[str, Any]:
    body: dict[str, Any] = yaml.safe_load((SERVING_EXAMPLES / name).read_text())
    return body


@pytest.mark.parametrize("name", ["hpa.yaml", "keda.yaml"])
def test_an_autoscaler_names_the_resource_that_leaves_its_replicas_open(name: str) -> None:
    resource, autoscaler = load("autoscaled.yaml"), load(name)
    target = {"apiVersion": f"{GROUP}/{VERSION}", "kind": AdapterDeployment.kind_name}
    assert autoscaler["spec"]["scaleTargetRef"] == target | {"name": resource["metadata"]["name"]}
    assert "replicas" not in resource["spec"]
    assert "tunesmith_agent_num_requests_running" in str(autoscaler["spec"])
