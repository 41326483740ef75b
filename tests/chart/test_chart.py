"""What the chart renders: the CRDs, exactly the rights that are used, pods at the ``restricted`` level."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from simulation.serving_world import ENVIRONMENT, World, build_adapter

from tunesmith.manifests.environment import ServingNetwork
from tunesmith.manifests.serving_config_maps import ServingInputs
from tunesmith.manifests.serving_deployment import MONITORING_PORT, build_serving_deployment
from tunesmith.process.settings import read_settings
from tunesmith_cluster.binaries import program

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "tunesmith"


def render(*settings: str, chart: Path = CHART) -> list[dict[str, Any]]:
    """The chart's objects with these ``--set`` values."""
    options = [part for setting in settings for part in ("--set", setting)]
    command = [
        program("helm"),
        "template",
        "tunesmith",
        str(chart),
        "--namespace=system",
        "--kube-version=1.35.0",
    ]
    result = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if result.returncode:
        raise ValueError(result.stderr)
    return [document for document in yaml.safe_load_all(result.stdout) if document]


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Those of one kind."""
    return [each for each in objects if each["kind"] == kind]


def environment_of(objects: list[dict[str, Any]]) -> dict[str, str]:
    """Variables of the operator's container, without those that Kubernetes fills in."""
    (deployment,) = of_kind(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each["value"] for each in container["env"] if "value" in each}


@pytest.fixture(scope="module")
def default() -> list[dict[str, Any]]:
    """The chart as it is."""
    return render()


def test_the_generated_crds_are_installed_and_kept(default: list[dict[str, Any]]) -> None:
    rendered = {crd["metadata"]["name"]: crd for crd in of_kind(default, "CustomResourceDefinition")}
    for file in (ROOT / "crds").glob("*.yaml"):
        crd = yaml.safe_load(file.read_text())
        installed = rendered.pop(crd["metadata"]["name"])
        assert installed["spec"] == crd["spec"]
        assert installed["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert not rendered
    assert not of_kind(render("crds.install=false"), "CustomResourceDefinition")


def test_all_pods_keep_to_the_restricted_level(default: list[dict[str, Any]]) -> None:
    specs = [each["spec"]["template"]["spec"] for each in of_kind(default, "Deployment")]
    specs += [each["spec"] for each in of_kind(default, "Pod")]
    assert len(specs) == 2
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def rights(role: dict[str, Any]) -> set[tuple[str, str, str]]:
    """Group, resource and verb of each rule."""
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_no_right_is_a_wildcard_or_reads_secrets_of_users(default: list[dict[str, Any]]) -> None:
    for role in of_kind(default, "ClusterRole") + of_kind(default, "Role"):
        for group, resource, verb in rights(role):
            assert "*" not in (group, resource, verb)
    (operator,) = (
        role for role in of_kind(default, "ClusterRole") if role["metadata"]["name"] == "tunesmith"
    )
    assert not any(resource == "secrets" for _, resource, _ in rights(operator))


def documented() -> set[tuple[str, str]]:
    """Resource and verb of each row in the tables of docs/security.md."""
    lines = (ROOT / "docs" / "security.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in lines if line.startswith("| ")]
    pairs = set()
    for resources, verbs in rows:
        names = [name.partition(" ")[0] for name in resources.split(", ")]
        pairs |= {(name, verb) for name in names for verb in re.findall(r"\w+", verbs)}
    return pairs


def test_each_right_has_its_reason(default: list[dict[str, Any]]) -> None:
    operators = [
        role
        for role in of_kind(default, "ClusterRole") + of_kind(default, "Role")
        if role["metadata"]["name"] in {"tunesmith", "tunesmith-own", "tunesmith-claim"}
    ]
    used = {(resource, verb) for role in operators for _, resource, verb in rights(role)}
    assert used <= documented()


def test_named_namespaces_get_roles_instead_of_a_cluster_role(default: list[dict[str, Any]]) -> None:
    objects = render("watchNamespaces={a,b}")
    (cluster_role,) = of_kind(objects, "ClusterRole")
    assert rights(cluster_role) == {
        ("authentication.k8s.io", "tokenreviews", "create"),
        ("", "nodes", "list"),
    }
    roles = {role["metadata"]["namespace"]: role for role in of_kind(objects, "Role")}
    assert set(roles) == {"a", "b", "system"}
    (everywhere,) = (
        role for role in of_kind(default, "ClusterRole") if role["metadata"]["name"] == "tunesmith"
    )
    assert rights(roles["a"]) == rights(everywhere) - rights(cluster_role)
    assert environment_of(objects)["TUNESMITH_WATCH_NAMESPACES"] == "a,b"


def test_an_installation_claims_all_namespaces_under_its_name(default: list[dict[str, Any]]) -> None:
    named = render("controllerName=a", "claimNamespace=shared")
    assert environment_of(named)["TUNESMITH_CONTROLLER_NAME"] == "a"
    for objects, namespace, lease in (
        (default, "default", "tunesmith-controller"),
        (named, "shared", "tunesmith-controller.a"),
    ):
        assert environment_of(objects)["TUNESMITH_CLAIM_NAMESPACE"] == namespace
        (role,) = (role for role in of_kind(objects, "Role") if role["metadata"]["name"] == "tunesmith-claim")
        assert role["metadata"]["namespace"] == namespace
        assert role["rules"][1]["resourceNames"] == [lease]
    for setting in ("claimNamespace=", "watchNamespaces={a}"):
        assert "tunesmith-claim" not in {
            role["metadata"]["name"] for role in of_kind(render(setting), "Role")
        }


def test_settings_of_pods_with_gpus_reach_the_operator(default: list[dict[str, Any]]) -> None:
    rendered = render(
        "gpu.runtimeClassName=nvidia",
        "gpu.tolerations[0].key=reserved",
        "gpu.tolerations[0].operator=Equal",
        "gpu.tolerations[0].value=gpu",
    )
    settings = read_settings([], environment_of(rendered))
    assert settings.gpu_runtime_class == "nvidia"
    (toleration,) = settings.gpu_tolerations
    assert toleration.to_dict() == {"key": "reserved", "operator": "Equal", "value": "gpu"}
    settings = read_settings([], environment_of(default))
    assert (settings.gpu_runtime_class, settings.gpu_tolerations) == ("", ())


@pytest.mark.parametrize(("settings", "cuda"), [((), "13"), (("trainerCuda=12", "servingGpuCuda=12"), "12")])
def test_the_operator_is_told_the_cuda_of_its_images(settings: tuple[str, ...], cuda: str) -> None:
    (deployment,) = of_kind(render(*settings), "Deployment")
    variables = {
        each["name"]: each.get("value")
        for each in deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert variables["TUNESMITH_TRAINER_CUDA"] == cuda
    assert read_settings([], {"TUNESMITH_TRAINER_CUDA": cuda}).trainer_cuda == int(cuda)
    assert variables["TUNESMITH_SERVING_GPU_CUDA"] == cuda
    assert read_settings([], {"TUNESMITH_SERVING_GPU_CUDA": cuda}).serving_gpu_cuda == int(cuda)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("trainerCuda=11", "trainerCuda"),
        ("replica=2", "replica"),
        ("log.level=LOUD", "level"),
        ("image.digest=sha256:x", "digest"),
        ("replicas=0", "replicas"),
        ("gpu.tolerations[0].kye=reserved", "kye"),
        ("servingNetworkPolicy.clients[0].podSelecter.x=y", "podSelecter"),
        ("servingTelemetry.traces.sampleRatio=2", "sampleRatio"),
        ("servingTelemetry.traces.endpoint=http://me:key@collector/v1/traces", "endpoint"),
    ],
)
def test_a_wrong_value_is_refused_by_name(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render(setting)


def test_optional_objects_are_rendered_on_request(default: list[dict[str, Any]]) -> None:
    kinds = {"PodDisruptionBudget", "NetworkPolicy", "PodMonitor", "ConfigMap"}
    assert not kinds & {each["kind"] for each in default}
    objects = render(
        "podDisruptionBudget.enabled=true",
        "networkPolicy.enabled=true",
        "metrics.podMonitor.enabled=true",
        "extraObjects[0].apiVersion=v1",
        "extraObjects[0].kind=ConfigMap",
        "extraObjects[0].metadata.name=\\{\\{ .Release.Name \\}\\}-more",
    )
    assert kinds <= {each["kind"] for each in objects}
    assert of_kind(objects, "ConfigMap")[0]["metadata"]["name"] == "tunesmith-more"


def test_metrics_of_serving_pods_are_read_from_their_own_port() -> None:
    """Not from the port for clients, which answers no scrape."""
    monitors = of_kind(render("metrics.podMonitor.enabled=true"), "PodMonitor")
    serving = next(each["spec"] for each in monitors if each["metadata"]["name"].endswith("-serving"))
    assert serving["namespaceSelector"] == {"any": True}
    resource = World(build_adapter("one")).resource
    template = build_serving_deployment(resource, ServingInputs(1, "", "image"), ENVIRONMENT)["spec"][
        "template"
    ]
    assert serving["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (agent,) = template["spec"]["containers"]
    (endpoint,) = serving["podMetricsEndpoints"]
    ports = {port["name"]: port["containerPort"] for port in agent["ports"]}
    assert ports[endpoint["port"]] == MONITORING_PORT


def variables_of(objects: list[dict[str, Any]]) -> dict[str, Any]:
    """Environment of the operator."""
    (deployment,) = of_kind(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable.get("value") for variable in container["env"]}


def test_the_operator_is_told_who_may_reach_serving_pods(default: list[dict[str, Any]]) -> None:
    name = "TUNESMITH_SERVING_NETWORK"
    sources = read_settings([], {name: variables_of(default)[name]}).serving_network
    assert sources is not None
    own_namespace: tuple[dict[str, Any], ...] = ({"podSelector": {}},)
    assert sources.to_network() == ServingNetwork(own_namespace, own_namespace)
    assert name not in variables_of(render("servingNetworkPolicy.enabled=false"))
    gateway = "servingNetworkPolicy.clients[0].ipBlock.cidr=10.0.0.0/8"
    given = read_settings([], {name: variables_of(render(gateway))[name]}).serving_network
    assert given is not None and given.to_network().clients == ({"ipBlock": {"cidr": "10.0.0.0/8"}},)


def test_the_operator_is_told_where_traces_go(default: list[dict[str, Any]]) -> None:
    settings = read_settings([], environment_of(default))
    assert (settings.traces_endpoint, settings.traces_ratio) == ("", 0.01)
    url = "http://collector.observability:4318/v1/traces"
    given = render(f"servingTelemetry.traces.endpoint={url}", "servingTelemetry.traces.sampleRatio=1")
    settings = read_settings([], environment_of(given))
    assert (settings.traces_endpoint, settings.traces_ratio) == (url, 1.0)


def test_serving_has_an_image_for_cpus_and_one_for_gpus(default: list[dict[str, Any]]) -> None:
    names = ("TUNESMITH_SERVING_IMAGE", "TUNESMITH_SERVING_GPU_IMAGE")
    assert [variables_of(default)[name] for name in names] == ["tunesmith.dev/serving:0.1.0", ""]
    on_gpus = variables_of(render("servingImage=", "servingGpuImage=registry/serving-gpu:1"))
    assert [on_gpus[name] for name in names] == ["", "registry/serving-gpu:1"]
    settings = read_settings([], {name: str(value) for name, value in on_gpus.items() if value is not None})
    assert (settings.serving_image, settings.serving_gpu_image) == ("", "registry/serving-gpu:1")


def notes_of(copy: Path, *settings: str) -> str:
    """What helm prints after an installation: rendered as an object's text, which needs no cluster."""
    shutil.copytree(CHART, copy)
    (copy / "templates" / "NOTES.txt").rename(copy / "NOTES.txt")
    text = 'apiVersion: v1\nkind: Notes\ntext: {{ tpl (.Files.Get "NOTES.txt") . | quote }}\n'
    (copy / "templates" / "notes.yaml").write_text(text)
    (notes,) = of_kind(render(*settings, chart=copy), "Notes")
    return str(notes["text"])


def test_the_notes_name_the_images_and_the_driver(tmp_path: Path) -> None:
    assert "serving with GPUs:       none. Set servingGpuImage" in notes_of(tmp_path / "none")
    notes = notes_of(tmp_path / "some", "servingGpuImage=registry/serving-gpu:1")
    assert "serving with GPUs:       registry/serving-gpu:1" in notes
    assert "For training (CUDA 13): 580 or newer" in notes
    older = notes_of(tmp_path / "older", "trainerCuda=12")
    assert "For training (CUDA 12): 525 or newer" in older
    assert "For serving (CUDA 13): 580 or newer" in older
    assert "For serving (CUDA 12): 525 or newer" in notes_of(tmp_path / "engine", "servingGpuCuda=12")
