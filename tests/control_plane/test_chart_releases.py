"""The chart over its life on a real API server: upgrades with changed CRDs, and installations beside kept CRDs."""

import gzip
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from control_plane.restartable_operator import RestartableOperator
from control_plane.served_jobs import collection, wait_established
from custom_resources.manifest_cases import merge, read_documents
from custom_resources.schema_nodes import walk

from tunesmith.api import GROUP, KINDS
from tunesmith_cluster.binaries import program
from tunesmith_cluster.client import KubectlError, eventually
from tunesmith_cluster.fake import ControlPlane

CHART = Path(__file__).parents[2] / "helm" / "tunesmith"
PREVIOUS = Path(__file__).parent / "previous_release"
#: Names of the CRDs.
CRDS = [f"{kind.plural}.{GROUP}" for kind in KINDS]


class Helm:
    """Releases on one API server."""

    def __init__(self, server: ControlPlane) -> None:
        self._server = server

    def __call__(self, *arguments: str) -> str:
        """Output of a command.

        Raises:
            ValueError: helm refused; the text is what a person reads.
        """
        command = [program("helm"), *arguments, f"--kubeconfig={self._server.kubeconfig}"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if result.returncode:
            raise ValueError(result.stderr)
        return result.stdout


@pytest.fixture
def helm(control_plane: ControlPlane) -> Iterator[Helm]:
    """Helm on an API server without the kinds; those and all releases are removed at the end."""
    remove_crds(control_plane)
    helm = Helm(control_plane)
    yield helm
    for release in json.loads(helm("list", "--all-namespaces", "--output=json")):
        helm("uninstall", release["name"], f"--namespace={release['namespace']}")
    remove_crds(control_plane)


def remove_crds(server: ControlPlane) -> None:
    """Remove the kinds with all resources."""
    server.kubectl("delete", "crd", "--ignore-not-found", *CRDS)


def previous_chart(folder: Path) -> Path:
    """The chart with the CRDs and values of the release before."""
    chart = folder / "tunesmith"
    shutil.copytree(CHART, chart, ignore=shutil.ignore_patterns("crds"))
    (chart / "files" / "crds").mkdir()
    for crd in json.loads(gzip.decompress((PREVIOUS / "crds.json.gz").read_bytes())):
        (chart / "files" / "crds" / f"{crd['metadata']['name']}.yaml").write_text(json.dumps(crd))
    return chart


def install_previous(server: ControlPlane, helm: Helm, folder: Path) -> tuple[str, str]:
    """Install the release before; returns its namespace and one for resources."""
    system, team = server.namespace("system"), server.namespace("team")
    values = f"--values={PREVIOUS / 'values.yaml'}"
    helm("install", "tunesmith", str(previous_chart(folder)), f"--namespace={system}", values)
    for crd in CRDS:
        wait_established(server, crd)
    return system, team


def previous_resources() -> list[dict[str, Any]]:
    """A manifest of each kind as that release took it; those of today may have newer fields."""
    return read_documents((PREVIOUS / "resources.yaml").read_text())


def crd_of(server: ControlPlane, name: str) -> dict[str, Any]:
    """A stored CRD."""
    return server.api.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")


def spec_of(server: ControlPlane, namespace: str, body: dict[str, Any]) -> dict[str, Any]:
    """The stored spec of a resource."""
    spec: dict[str, Any] = server.get(body["kind"], body["metadata"]["name"], namespace)["spec"]
    return spec


def _without_gpu_resource(value: Any) -> Any:
    """A spec without the field whose default became a value of the installation."""
    if isinstance(value, dict):
        return {key: _without_gpu_resource(item) for key, item in value.items() if key != "gpuResource"}
    return [_without_gpu_resource(item) for item in value] if isinstance(value, list) else value


def test_an_upgrade_changes_the_crds_and_keeps_resources(
    control_plane: ControlPlane, helm: Helm, tmp_path: Path
) -> None:
    system, team = install_previous(control_plane, helm, tmp_path)
    bodies = previous_resources()
    for body in bodies:
        control_plane.apply(body, team)
    before = [spec_of(control_plane, team, body) for body in bodies]
    assert before[0]["method"]["grpo"]["rewards"][0]["weight"] == "1", "the API server wrote defaults then"

    helm("upgrade", "tunesmith", str(CHART), f"--namespace={system}", "--reset-then-reuse-values")
    for kind in KINDS:
        found = crd_of(control_plane, f"{kind.plural}.{GROUP}")
        nodes = walk(found["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
        assert not [path for path, node in nodes if "[]" in path and "default" in node]
        assert found["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    for kind, body, spec in zip(KINDS, bodies, before, strict=True):
        # The API server adds the defaults of new fields, and changes nothing that was there.
        now = spec_of(control_plane, team, body)
        assert merge(now, spec) == now
        parsed: list[Any] = [kind.parse({**body, "spec": each}) for each in (spec, body["spec"])]
        stored, written = (_without_gpu_resource(each.spec.to_dict()) for each in parsed)
        assert stored == written
    # What may be changed can be: the stored resources are valid, and the file of a deployment says the same as before.
    suspended = control_plane.kubectl(
        "patch",
        "ftj",
        bodies[0]["metadata"]["name"],
        "-n",
        team,
        "--type=merge",
        '-p={"spec":{"suspend":true}}',
    )
    assert "patched" in suspended
    flags = ("apply", f"--namespace={team}", "-f", "-")
    assert "configured" in control_plane.kubectl(*flags, stdin=json.dumps(bodies[2]))
    assert "unchanged" in control_plane.kubectl(*flags, stdin=json.dumps(bodies[2]))
    # A spec that can't be changed has the defaults of then; server-side apply leaves them, client-side apply would not.
    with pytest.raises(KubectlError, match="method can't be changed after the job is created"):
        control_plane.kubectl(*flags, stdin=json.dumps(bodies[0]))
    by_server = ("apply", "--server-side", "--force-conflicts", f"--namespace={team}", "-f", "-")
    assert "serverside-applied" in control_plane.kubectl(*by_server, stdin=json.dumps(bodies[0]))


def test_the_operator_goes_on_with_resources_of_the_release_before(
    control_plane: ControlPlane, helm: Helm, tmp_path: Path
) -> None:
    system, team = install_previous(control_plane, helm, tmp_path)
    body = previous_resources()[0]
    control_plane.apply(body, team)
    helm("upgrade", "tunesmith", str(CHART), f"--namespace={system}", "--reuse-values")
    with RestartableOperator(control_plane, tmp_path, team):
        path = f"{collection(team)}/{body['metadata']['name']}"

        def processed() -> dict[str, Any] | None:
            status = control_plane.api.get(path)["status"]
            return status if status.get("observedGeneration") == 1 else None

        status = eventually(processed, what="the operator to process the job")
        assert {each["type"]: each["status"] for each in status["conditions"]}["Stalled"] == "False"


def test_an_installation_beside_kept_crds_says_what_to_do(control_plane: ControlPlane, helm: Helm) -> None:
    first, second = control_plane.namespace("first"), control_plane.namespace("second")
    helm("install", "tunesmith", str(CHART), f"--namespace={first}")
    helm("uninstall", "tunesmith", f"--namespace={first}")
    assert all(crd_of(control_plane, crd) for crd in CRDS)
    helm("install", "tunesmith", str(CHART), f"--namespace={first}")
    helm("uninstall", "tunesmith", f"--namespace={first}")

    for name, namespace in (("other", first), ("tunesmith", second)):
        with pytest.raises(ValueError, match=r"--take-ownership --set crds\.adopt=true") as refused:
            helm("install", name, str(CHART), f"--namespace={namespace}")
        assert f"belongs to the Helm release tunesmith in namespace {first}" in str(refused.value)
        assert "--set crds.install=false" in str(refused.value)
    helm("install", "beside", str(CHART), f"--namespace={second}", "--set=crds.install=false,claimNamespace=")
    helm("uninstall", "beside", f"--namespace={second}")

    adopt = ("--take-ownership", "--set=crds.adopt=true")
    helm("install", "other", str(CHART), f"--namespace={second}", *adopt)
    owner = crd_of(control_plane, CRDS[0])["metadata"]["annotations"]
    assert (owner["meta.helm.sh/release-name"], owner["meta.helm.sh/release-namespace"]) == ("other", second)
    helm("upgrade", "other", str(CHART), f"--namespace={second}", "--reset-then-reuse-values")
    helm("uninstall", "other", f"--namespace={second}")


def test_crds_that_helm_did_not_install_are_named_as_such(control_plane: ControlPlane, helm: Helm) -> None:
    control_plane.kubectl("apply", "--server-side", "-f", str(CHART.parents[1] / "crds"))
    namespace = control_plane.namespace("system")
    with pytest.raises(ValueError, match="is there already and was not installed by Helm"):
        helm("install", "tunesmith", str(CHART), f"--namespace={namespace}")


def test_policies_are_taken_by_the_api_server(control_plane: ControlPlane, helm: Helm) -> None:
    system, team = control_plane.namespace("system"), control_plane.namespace("team")
    settings = (
        "networkPolicy.enabled=true",
        f"jobNetworkPolicy.namespaces={{{team}}}",
        "jobNetworkPolicy.egress[0].to[0].ipBlock.cidr=fd00::/8",
    )
    flags = [f"--set={setting}" for setting in settings]
    helm("install", "tunesmith", str(CHART), f"--namespace={system}", *flags)
    path = f"/apis/networking.k8s.io/v1/namespaces/{team}/networkpolicies/tunesmith-jobs"
    assert len(control_plane.api.get(path)["spec"]["egress"]) == 5
    helm("uninstall", "tunesmith", f"--namespace={system}")
