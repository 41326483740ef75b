"""The operator works with the chart's permissions, and asks for nothing else."""

import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from control_plane.cluster_runs import Runs
from control_plane.operator_process import operator_process
from control_plane.restartable_operator import RestartableOperator
from control_plane.served_adapters import Serving
from control_plane.served_jobs import children, create_job, install_crds
from simulation.search_world import SEARCH
from simulation.serving_world import build_adapter, digest_of
from simulation.simulated_cluster import fine_tune_job, success
from yaml_text import read_all_yaml

from tunesmith_cluster.binaries import program
from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane

CHART = Path(__file__).parents[2] / "helm" / "tunesmith"
#: What `helm template`, which asks no cluster, is to suppose.
KUBE_VERSION = "1.35.0"
KINDS = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


def render(namespace: str, *values: str) -> list[dict[str, Any]]:
    """The chart's accounts and permissions."""
    settings = [f"--set={value}" for value in values]
    scope = [f"--namespace={namespace}", f"--kube-version={KUBE_VERSION}"]
    command = [program("helm"), "template", "tunesmith", str(CHART), *scope, *settings]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [body for body in read_all_yaml(text) if body["kind"] in KINDS]


def grant(server: ControlPlane, namespace: str, *values: str) -> None:
    """Create the chart's account, and its permissions; wait until the API server knows them, which takes a moment."""
    bodies = render(namespace, *values)
    server.apply(bodies)
    [account] = [body["metadata"]["name"] for body in bodies if body["kind"] == "ServiceAccount"]
    user = f"system:serviceaccount:{namespace}:{account}"
    bound = {(body["roleRef"]["kind"], body["roleRef"]["name"]) for body in bodies if "roleRef" in body}
    roles = [body for body in bodies if (body["kind"], body["metadata"]["name"]) in bound]
    eventually(
        lambda: all(is_allowed(server, user, role, rule) for role in roles for rule in role["rules"]),
        what=f"the permissions of {user}",
    )


def is_allowed(server: ControlPlane, user: str, role: dict[str, Any], rule: dict[str, Any]) -> bool:
    """True if the API server lets a user do what a rule of a role permits."""
    resource, _, subresource = rule["resources"][-1].partition("/")
    asked = {
        "group": rule["apiGroups"][-1],
        "resource": resource,
        "subresource": subresource,
        "verb": rule["verbs"][-1],
    }
    asked |= {"name": rule.get("resourceNames", [""])[-1], "namespace": role["metadata"].get("namespace", "")}
    review = {"spec": {"user": user, "resourceAttributes": asked}}
    answer = server.api.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    allowed: bool = answer["status"]["allowed"]
    return allowed


def write_kubeconfig(server: ControlPlane, namespace: str, path: Path) -> Path:
    """A kubeconfig of the chart's service account."""
    [account] = [body for body in render(namespace) if body["kind"] == "ServiceAccount"]
    name = account["metadata"]["name"]
    tokens = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
    token = server.api.create(tokens, {"spec": {"expirationSeconds": 3600}})["status"]["token"]
    config = yaml.safe_load(server.kubeconfig.read_text())
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    path.write_text(yaml.safe_dump(config))
    return path


def serve(server: ControlPlane, namespace: str, replicas: int) -> None:
    """Create or change an AdapterDeployment without adapters."""
    body = {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "AdapterDeployment",
        "metadata": {"name": "serve"},
        "spec": {"baseModel": {"uri": "pvc://models/base"}, "replicas": replicas, "adapters": []},
    }
    server.apply(body, namespace)


@pytest.mark.parametrize("scoped", [False, True], ids=["all namespaces", "one namespace"])
def test_the_charts_permissions_are_enough(control_plane: ControlPlane, tmp_path: Path, scoped: bool) -> None:
    install_crds(control_plane)
    system, namespace = control_plane.namespace("system"), control_plane.namespace("kernel")
    grant(control_plane, system, f"watchNamespaces[0]={namespace}" if scoped else f"claimNamespace={system}")
    kubeconfig = write_kubeconfig(control_plane, system, tmp_path / "kubeconfig")
    watched = {"watch_namespaces": namespace} if scoped else {"claim_namespace": system}
    with operator_process(kubeconfig, tmp_path, namespace=system, **watched) as operator:
        operator.wait_leading()
        job = create_job(control_plane, namespace)
        eventually(lambda: children(control_plane, job), what="the first Job")
        eventually(lambda: 'kind="Event",verb="create"' in operator.read("/metrics")[1], what="an event")
        budgets = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"
        serve(control_plane, namespace, replicas=2)
        eventually(lambda: control_plane.api.get(budgets)["items"], what="the disruption budget")
        serve(control_plane, namespace, replicas=1)
        eventually(lambda: not control_plane.api.get(budgets)["items"], what="the budget's deletion")
        assert 'code="403"' not in operator.read("/metrics")[1]
        assert operator.read("/livez") == (200, "ok")


def test_they_are_enough_for_a_search(control_plane: ControlPlane, tmp_path: Path) -> None:
    install_crds(control_plane)
    system, runs = control_plane.namespace("system"), Runs(control_plane, tmp_path)
    grant(control_plane, system)
    kubeconfig = write_kubeconfig(control_plane, system, tmp_path / "kubeconfig")
    with operator_process(kubeconfig, tmp_path, namespace=system) as operator:
        operator.wait_leading()
        job = runs.create(fine_tune_job(compute={"gpusPerNode": 0}, search=SEARCH), "searched")
        runs.finish(job, "prepare", 1, 0, success("prepare"))
        eventually(lambda: runs.exists("FineTuneJob", "searched-trial-2"), what="the second trial")
        runs.patch("FineTuneJob", "searched", {"spec": {"suspend": True}})
        runs.wait("FineTuneJob", "searched-trial-2", "Suspended")
        assert 'code="403"' not in operator.read("/metrics")[1]


def test_they_are_enough_for_a_rollout(control_plane: ControlPlane, tmp_path: Path) -> None:
    install_crds(control_plane)
    system = control_plane.namespace("system")
    grant(control_plane, system)
    kubeconfig = write_kubeconfig(control_plane, system, tmp_path / "kubeconfig")
    with ExitStack() as stack:
        operator = RestartableOperator(control_plane, tmp_path, "", kubeconfig, system)
        stack.push(operator)
        operator.start('--serving-network={"clients": [{"podSelector": {}}]}')
        serving = Serving(control_plane, tmp_path, operator)
        serving.apply(build_adapter("one"))
        policies = f"/apis/networking.k8s.io/v1/namespaces/{serving.namespace}/networkpolicies"
        with serving.agent() as agent:
            serving.wait("Stable", digest_of("one"), timeout=60)
            assert control_plane.api.get(policies)["items"]
            serving.apply(build_adapter("two"))
            serving.wait("Progressing", digest_of("one"))
            agent.counters["expenses", digest_of("two")] = (20, 15)
            serving.wait("RolledBack", digest_of("one"))
            serving.apply(build_adapter("three"), revisionHistoryLimit=0)
            serving.wait("Progressing", digest_of("one"))
            serving.apply(build_adapter("four"), revisionHistoryLimit=0)
            eventually(
                lambda: "three" not in serving.remembered_artifacts(), what="the end of an old version"
            )
            serving.apply(build_adapter("two"), replicas=2)
            path = f"/apis/apps/v1/namespaces/{serving.namespace}/deployments"
            eventually(
                lambda: control_plane.api.get(path)["items"][0]["spec"]["replicas"] == 2, what="two replicas"
            )
            assert 'code="403"' not in serving.operator.metrics
            serving.apply(
                build_adapter("two"), engine={"gpus": 1, "maxRank": 8, "updateStrategy": "SecondSet"}
            )
            eventually(lambda: len(control_plane.api.get(path)["items"]) == 2, what="a second set of pods")
            serving.apply(build_adapter("two"))
            eventually(
                lambda: len(control_plane.api.get(path)["items"]) == 1, what="the end of the second set"
            )
            assert 'code="403"' not in serving.operator.metrics
            serving.operator.stop()
            serving.operator.start()
            eventually(lambda: not control_plane.api.get(policies)["items"], what="the end of the policy")
            assert 'code="403"' not in serving.operator.metrics
