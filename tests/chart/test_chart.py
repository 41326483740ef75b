"""What the chart renders: the CRDs, exactly the rights that are used, pods at the ``restricted`` level."""

import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from custom_resources.documented_manifests import DOCUMENTED_VALUES
from simulation.serving_world import ENVIRONMENT, World, build_adapter
from yaml_text import read_all_yaml, read_yaml

from tunesmith.api import GROUP, KINDS, VERSION
from tunesmith.manifests.environment import ServingNetwork
from tunesmith.manifests.names import child_labels
from tunesmith.manifests.outbound import CABundle, Outbound
from tunesmith.manifests.serving_config_maps import ServingInputs
from tunesmith.manifests.serving_deployment import (
    AGENT_PORT,
    MONITORING_PORT,
    build_serving_deployment,
    serving_labels,
)
from tunesmith.process.settings import read_settings
from tunesmith_cluster.binaries import program
from tunesmith_contract.stages import Stage
from tunesmith_images.catalog import IMAGES

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "tunesmith"


def render(*settings: str, chart: Path = CHART, values: Path | None = None) -> list[dict[str, Any]]:
    """The chart's objects with these ``--set`` values, and those of a file."""
    options = [part for setting in settings for part in ("--set", setting)]
    options += [f"--values={values}"] if values else []
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
    return read_all_yaml(result.stdout)


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
        crd = read_yaml(file.read_text())
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
        # OpenShift assigns them; elsewhere they are the image's own.
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(spec["securityContext"])
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


def test_prices_and_labels_reach_the_operator(default: list[dict[str, Any]], tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("gpu: {prices: [{resource: nvidia.com/gpu, perHour: 2.5, currency: EUR}]}")
    rendered = render("metrics.ownerLabels={team,example.com/unit}", values=values)
    settings = read_settings([], environment_of(rendered))
    (stated,) = settings.gpu_prices
    assert (stated.resource, stated.perHour, stated.currency) == ("nvidia.com/gpu", 2.5, "EUR")
    assert settings.metrics_owner_labels == ("team", "example.com/unit")
    settings = read_settings([], environment_of(default))
    assert (settings.gpu_prices, settings.metrics_owner_labels) == ((), ())


def test_admission_policies_limit_what_they_name_alone(default: list[dict[str, Any]]) -> None:
    assert not of_kind(default, "ValidatingAdmissionPolicy")
    selector = "admissionPolicies[0].namespaceSelector.matchLabels.team=a"
    objects = render("admissionPolicies[0].name=a", selector, "admissionPolicies[0].allow.methods={sft}")
    (policy,) = of_kind(objects, "ValidatingAdmissionPolicy")
    (rule,) = policy["spec"]["matchConstraints"]["resourceRules"]
    assert rule["resources"] == ["finetunejobs"]
    assert all(check["message"].startswith("spec.method.") for check in policy["spec"]["validations"])
    (binding,) = of_kind(objects, "ValidatingAdmissionPolicyBinding")
    assert binding["spec"] == {
        "policyName": policy["metadata"]["name"],
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": {"matchLabels": {"team": "a"}}},
    }
    twice = ("admissionPolicies[0].name=a", "admissionPolicies[1].name=a")
    with pytest.raises(ValueError, match="two have the name a"):
        render(*twice, *(f"admissionPolicies[{number}].allow.methods={{sft}}" for number in (0, 1)))


def test_defaults_of_gpus_and_limits_reach_the_operator(default: list[dict[str, Any]]) -> None:
    rendered = render(
        "defaults.gpuResource=amd.com/gpu",
        "defaults.limitRequestRatio.cpu=4",
        "defaults.limitRequestRatio.memory=1.5",
        "defaults.limitRequestRatio.ephemeral-storage=2",
    )
    settings = read_settings([], environment_of(rendered))
    assert settings.gpu_resource == "amd.com/gpu"
    ratios = settings.limit_request_ratio.to_rules().ratios
    assert ratios == {"cpu": "4", "memory": "1.5", "ephemeral-storage": "2"}
    settings = read_settings([], environment_of(default))
    assert (settings.gpu_resource, settings.limit_request_ratio.to_rules().ratios) == ("nvidia.com/gpu", {})


def test_the_operator_is_told_what_pods_need_outside_the_cluster(default: list[dict[str, Any]]) -> None:
    rendered = render(
        "platform=OpenShift",
        "defaults.env[0].name=HTTPS_PROXY",
        "defaults.env[0].valueFrom.secretKeyRef.name=proxy",
        "defaults.env[0].valueFrom.secretKeyRef.key=url",
        "defaults.caBundle.configMap=trust",
        "defaults.hfEndpoint=https://hub.example.com",
    )
    settings = read_settings([], environment_of(rendered))
    secret = {"valueFrom": {"secretKeyRef": {"name": "proxy", "key": "url"}}}
    variables: dict[str, dict[str, Any]] = {
        "HTTPS_PROXY": secret,
        "HF_ENDPOINT": {"value": "https://hub.example.com"},
    }
    assert (settings.platform, settings.outbound) == ("OpenShift", Outbound(variables, CABundle("trust")))
    settings = read_settings([], environment_of(default))
    assert (settings.platform, settings.outbound) == ("Auto", Outbound())


_IMAGE_VARIABLE = re.compile(r"^TUNESMITH_\w+_IMAGE$")


def images_of(objects: list[dict[str, Any]]) -> set[str]:
    """Images of the chart's own pods, and of the pods that the operator makes."""
    specs = [each["spec"]["template"]["spec"] for each in of_kind(objects, "Deployment")]
    specs += [each["spec"] for each in of_kind(objects, "Pod")]
    own = {container["image"] for spec in specs for container in spec["containers"]}
    return own | {
        value for name, value in environment_of(objects).items() if _IMAGE_VARIABLE.match(name) and value
    }


def test_one_value_names_the_registry_of_all_images() -> None:
    digest = f"sha256:{'a' * 64}"
    rendered = render(
        "imageRegistry=registry.example.com:5000/mirror/",
        f"image.digest={digest}",
        "trainerImage=localhost:5000/team/trainer:1",
        "servingImage=team/serving:1",
        f"servingGpuImage=tunesmith.dev/serving-gpu@{digest}",
    )
    mirror = "registry.example.com:5000/mirror"
    assert images_of(rendered) == {
        f"{mirror}/operator@{digest}",
        f"{mirror}/team/trainer:1",
        f"{mirror}/team/serving:1",
        f"{mirror}/serving-gpu@{digest}",
    }
    assert environment_of(render(f"imageRegistry={mirror}"))["TUNESMITH_SERVING_GPU_IMAGE"] == ""


def test_the_list_of_images_holds_all_that_chart_and_operator_name(default: list[dict[str, Any]]) -> None:
    (served,) = {image for image in images_of(default) if "serving" in image}
    listed = (CHART / "images.txt").read_text().splitlines()
    # The value for GPUs is empty by default; the notes of the chart name the image.
    on_gpus = served.replace("/serving:", "/serving-gpu:")
    assert images_of(default) | {on_gpus} <= set(listed)
    assert {image.rpartition("/")[2].partition(":")[0] for image in listed} == set(IMAGES)


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
        ("networkPolicy.apiServerPorts[0]=0", "apiServerPorts"),
        ("jobNetworkPolicy.namespaces[0]=Team", "namespaces"),
        ("jobNetworkPolicy.egress[0].form.x=y", "form"),
        ("image.digest=sha256:x", "digest"),
        ("replicas=0", "replicas"),
        ("gpu.tolerations[0].kye=reserved", "kye"),
        ("defaults.gpuResource=gpu", "gpuResource"),
        ("defaults.limitRequestRatio.gpu=2", "limitRequestRatio"),
        ("defaults.limitRequestRatio.memory=0", "memory"),
        ("defaults.limitRequestRatio.memory=0.5", "memory"),
        ("servingNetworkPolicy.clients[0].podSelecter.x=y", "podSelecter"),
        ("servingTelemetry.traces.sampleRatio=2", "sampleRatio"),
        ("gpu.prices[0].resource=nvidia.com/gpu", "perHour"),
        ("admissionPolicies[0].name=a", "allow"),
        ("admissionPolicies[0].allow.images={a*}", "images"),
        ("admissionPolicies[0].allow.endpoints={https://*}", "endpoints"),
        ("admissionPolicies[0].allow.endpoints={https://llm.example.com:*}", "endpoints"),
        ("admissionPolicies[0].allow.methods={sftt}", "methods"),
        ("admissionPolicies[0].allow.gpuHours=ten", "gpuHours"),
        ("servingTelemetry.traces.endpoint=http://me:key@collector/v1/traces", "endpoint"),
        ("platform=Openshift", "platform"),
        ("imageRegistry=https://registry.example.com", "imageRegistry"),
        ("defaults.hfEndpoint=https://me:token@hub.example.com", "hfEndpoint"),
        ("defaults.env[0].name=HTTPS_PROXY,defaults.env[0].value=http://me:key@proxy:3128", "value"),
    ],
)
def test_a_wrong_value_is_refused_by_name(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render(setting)


@pytest.mark.parametrize("place", DOCUMENTED_VALUES)
def test_values_that_pages_show_are_taken(place: str, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(DOCUMENTED_VALUES[place])
    assert render(values=file)


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
    assert "helm test tunesmith --namespace system" in notes
    assert "under others, add --take-ownership --set crds.adopt=true" in notes
    assert "crds.adopt" not in notes_of(tmp_path / "dropped", "crds.keep=false")


def test_the_operators_policy_opens_its_ports_dns_and_the_api_server() -> None:
    (policy,) = of_kind(
        render("networkPolicy.enabled=true", "networkPolicy.apiServer[0].ipBlock.cidr=10.0.0.1/32"),
        "NetworkPolicy",
    )
    spec = policy["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert [port["port"] for port in spec["ingress"][0]["ports"]] == ["pods", "metrics"]
    names, server = spec["egress"]
    assert {(port["port"], port["protocol"]) for port in names["ports"]} == {(53, "UDP"), (53, "TCP")}
    assert "to" not in names
    assert [port["port"] for port in server["ports"]] == [443, 6443]
    assert server["to"] == [{"ipBlock": {"cidr": "10.0.0.1/32"}}]


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """True if a label selector selects a pod with these labels."""
    expressions = selector.get("matchExpressions", ())
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in expressions
    )


def test_policies_of_jobs_select_the_pods_of_all_stages_and_let_them_reach_what_they_need() -> None:
    """By the labels and ports that the operator and the agents have."""
    assert not of_kind(render(), "NetworkPolicy")
    objects = render("jobNetworkPolicy.namespaces={a,b}", "jobNetworkPolicy.egress=null")
    policies = of_kind(objects, "NetworkPolicy")
    assert [each["metadata"]["namespace"] for each in policies] == ["a", "b"]
    spec = policies[0]["spec"]
    owner = World(build_adapter("one")).resource
    for stage in Stage:
        assert matches(spec["podSelector"], child_labels(owner, stage)), stage
    assert not matches(spec["podSelector"], serving_labels(owner))
    assert spec["ingress"] == [{"from": [{"podSelector": spec["podSelector"]}]}]
    names, gang, progress, serving = spec["egress"]
    assert [port["port"] for port in names["ports"]] == [53, 53]
    assert gang == {"to": spec["ingress"][0]["from"]}
    (deployment,) = of_kind(objects, "Deployment")
    pod = deployment["spec"]["template"]
    (operators,) = progress["to"]
    assert operators["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "system"}}
    assert matches(operators["podSelector"], pod["metadata"]["labels"])
    ports = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
    assert progress["ports"][0]["port"] == ports["pods"]
    assert matches(serving["to"][0]["podSelector"], serving_labels(owner))
    assert serving["ports"][0]["port"] == AGENT_PORT


def test_other_traffic_of_jobs_is_https_or_what_the_values_say() -> None:
    (policy,) = of_kind(render("jobNetworkPolicy.namespaces={a}"), "NetworkPolicy")
    assert policy["spec"]["egress"][-1] == {"ports": [{"port": 443, "protocol": "TCP"}]}
    store = (
        "jobNetworkPolicy.egress[0].to[0].ipBlock.cidr=10.0.0.0/8",
        "jobNetworkPolicy.egress[0].ports[0].port=9000",
    )
    (policy,) = of_kind(render("jobNetworkPolicy.namespaces={a}", *store), "NetworkPolicy")
    assert policy["spec"]["egress"][-1] == {
        "to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
        "ports": [{"port": 9000}],
    }


def test_artifact_hub_is_told_what_the_chart_installs() -> None:
    chart = read_yaml((CHART / "Chart.yaml").read_text())
    told = {
        name.removeprefix("artifacthub.io/"): read_yaml(text) for name, text in chart["annotations"].items()
    }
    values = read_yaml((CHART / "values.yaml").read_text())
    operator = f"{values['image']['repository']}:{chart['appVersion']}"
    assert [each["image"] for each in told["images"]] == [
        operator,
        values["trainerImage"],
        values["servingImage"],
    ]
    assert {(each["kind"], each["name"], each["version"]) for each in told["crds"]} == {
        (kind.kind_name, f"{kind.plural}.{GROUP}", VERSION) for kind in KINDS
    }
    examples: dict[str, Any] = {body["kind"]: body for body in told["crdsExamples"]}
    for kind in KINDS:
        parsed: Any = kind.parse(examples[kind.kind_name])
        assert parsed.spec.to_dict()


def test_the_packaged_chart_has_the_crds_and_can_be_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("gpg") is None:
        pytest.skip("gpg is not installed")
    # Paths of its sockets must be short.
    with TemporaryDirectory(prefix="gpg") as home:
        monkeypatch.setenv("GNUPGHOME", home)
        write_keys(tmp_path)
        package = [program("helm"), "package", str(CHART), f"--destination={tmp_path}"]
        secret = ["--sign", "--key=charts@example.com", f"--keyring={tmp_path / 'secret.gpg'}"]
        run([*package, *secret])
        (archive,) = tmp_path.glob("tunesmith-*.tgz")
        assert "Chart Hash Verified" in run(
            [program("helm"), "verify", str(archive), f"--keyring={tmp_path / 'public.gpg'}"]
        )
    with tarfile.open(archive) as files:
        names = set(files.getnames())
    assert {f"tunesmith/files/crds/{file.name}" for file in (ROOT / "crds").glob("*.yaml")} <= names


def run(command: list[str]) -> str:
    """Output of a command that must succeed."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def write_keys(folder: Path) -> None:
    """A new pair of keys in two keyrings, as Helm reads them."""
    gpg = ["gpg", "--batch", "--quiet", "--passphrase="]
    run([*gpg, "--pinentry-mode=loopback", "--quick-generate-key", "charts@example.com", "rsa2048", "sign"])
    run([*gpg, "--pinentry-mode=loopback", f"--output={folder / 'secret.gpg'}", "--export-secret-keys"])
    run([*gpg, f"--output={folder / 'public.gpg'}", "--export"])
    run(["gpgconf", "--kill", "all"])


def test_values_of_an_earlier_release_are_enough() -> None:
    """As ``helm upgrade --reuse-values`` gives them: without what was added since."""
    added = (
        "crds.adopt",
        "jobNetworkPolicy",
        "networkPolicy.apiServer",
        "networkPolicy.apiServerPorts",
        "networkPolicy.dns",
    )
    objects = render("networkPolicy.enabled=true", *(f"{name}=null" for name in added))
    assert len(of_kind(objects, "NetworkPolicy")) == 1
