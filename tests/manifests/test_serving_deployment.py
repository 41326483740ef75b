"""The objects of an AdapterDeployment, as they are applied."""

import json
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import pytest
from simulation.serving_world import ENVIRONMENT, World, build_adapter

from tunesmith.api.adapterdeployment import Engine, UpdateStrategy
from tunesmith.manifests.engine_container import EngineNeeds
from tunesmith.manifests.environment import Environment, ServingNetwork
from tunesmith.manifests.serving_config_maps import (
    ServingInputs,
    build_serving_inputs,
    read_serving_inputs,
)
from tunesmith.manifests.serving_deployment import (
    END_SECONDS,
    build_serving_deployment,
    build_serving_disruption_budget,
    rolling_update,
)
from tunesmith.manifests.serving_network_policy import build_serving_network_policy
from tunesmith.manifests.serving_service import build_serving_service
from tunesmith_agent.settings import Settings, parse_settings
from tunesmith_agent.telemetry.telemetry import TelemetrySettings
from tunesmith_contract.answer_formats import ThinkingFormat, ToolFormat

INPUTS = ServingInputs(1, "", "registry/serving:1")


def build(**spec: Any) -> dict[str, Any]:
    return build_serving_deployment(World(build_adapter("one"), **spec).resource, INPUTS, ENVIRONMENT)


def pod_of(deployment: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return pod


def environment_of(container: dict[str, Any]) -> dict[str, Any]:
    return {
        variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in container["env"]
    }


def test_engine_starts_before_the_agent_and_ends_after_it() -> None:
    engine = pod_of(build())["initContainers"][0]
    assert (engine["restartPolicy"], "ports" in engine) == ("Always", False)


def test_only_the_agent_reaches_the_engine_at_a_socket_that_both_mount() -> None:
    pod = pod_of(build())
    [engine], [agent] = pod["initContainers"], pod["containers"]
    path = engine["args"][engine["args"].index("--uds") + 1]
    assert not {"--host", "--port"} & set(engine["args"])
    assert environment_of(agent)["TUNESMITH_ENGINE_SOCKET"] == path
    assert engine["startupProbe"]["exec"]["command"][-1] == path
    folder = str(PurePosixPath(path).parent)
    assert (mounts_of(engine)[folder], mounts_of(agent)[folder]) == (False, True)
    # All containers run as one user, who may write what the engine creates.
    assert pod["securityContext"]["runAsUser"]
    assert "runAsUser" not in engine["securityContext"] | agent["securityContext"]


def test_an_image_that_was_chosen_before_sockets_keeps_its_pods_as_they_are() -> None:
    document = build_serving_inputs(World(build_adapter("one")).resource, INPUTS)
    values = json.loads(document["data"]["inputs.json"])
    assert values.pop("engineSocket") is True
    document["data"]["inputs.json"] = json.dumps(values)
    inputs = read_serving_inputs(document)
    pod = pod_of(build_serving_deployment(World(build_adapter("one")).resource, inputs, ENVIRONMENT))
    [engine], [agent] = pod["initContainers"], pod["containers"]
    assert engine["args"][:4] == ["--host", "127.0.0.1", "--port", "8001"]
    assert "127.0.0.1:8001/health" in engine["startupProbe"]["exec"]["command"][-1]
    assert "TUNESMITH_ENGINE_SOCKET" not in environment_of(agent)
    assert "engine-socket" not in {volume["name"] for volume in pod["volumes"]}


def test_probes_and_metrics_have_a_port_that_no_client_is_sent_to() -> None:
    agent = pod_of(build())["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in agent["ports"]}
    assert ports == {"http": 8000, "metrics": Settings().monitoring_port}
    assert agent["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
    for probe in ("startupProbe", "livenessProbe"):
        assert agent[probe]["httpGet"] == {"path": "/healthz", "port": "metrics"}
    service = build_serving_service(World(build_adapter("one")).resource)
    assert [port["targetPort"] for port in service["spec"]["ports"]] == ["http"]


def test_pods_are_restricted_and_get_no_api_token() -> None:
    pod = pod_of(build())
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    for container in (*pod["containers"], *pod["initContainers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def mounts_of(container: dict[str, Any]) -> dict[str, Any]:
    return {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}


def test_claims_are_mounted_read_only_where_the_contract_says_and_once() -> None:
    pod = pod_of(build(artifactVolumes=[{"claim": "artifacts"}, {"claim": "models"}]))
    agent, engine = mounts_of(pod["containers"][0]), mounts_of(pod["initContainers"][0])
    assert agent["/mnt/tunesmith/pvc/artifacts"] is True
    assert agent["/tmp"] is engine["/tmp"] is False
    assert "/dev/shm" in engine
    claims = [volume for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
    assert len(claims) == 2


@pytest.mark.parametrize("base", ["pvc://models/base", "pvc://artifacts/base", "hf://org/model"])
def test_the_engine_reads_adapters_from_copies_that_it_cannot_change(base: str) -> None:
    volumes = [{"claim": "artifacts"}, {"claim": "more"}]
    pod = pod_of(build(artifactVolumes=volumes, baseModel={"uri": base}))
    agent, engine = pod["containers"][0], pod["initContainers"][0]
    copies = "/var/cache/tunesmith-adapters"
    assert (mounts_of(agent)[copies], mounts_of(engine)[copies]) == (False, True)
    of_engine = {path for path in mounts_of(engine) if path.startswith("/mnt/")}
    assert of_engine == ({f"/mnt/tunesmith/pvc/{base.split('/')[2]}"} if base.startswith("pvc") else set())
    claims = {"/mnt/tunesmith/pvc/artifacts", "/mnt/tunesmith/pvc/more"}
    assert {path for path in mounts_of(agent) if path.startswith("/mnt/")} == claims
    shared = {mount["name"] for mount in agent["volumeMounts"]} & {
        mount["name"] for mount in engine["volumeMounts"] if not mount.get("readOnly")
    }
    assert shared == {"engine-socket"}, "the engine can write where the agent keeps what it must not forget"


def test_copies_of_adapters_stay_below_the_limit_of_their_volume() -> None:
    pod = pod_of(build(engine={"adapterCacheSize": "40Gi", "maxRank": 128, "residentAdapters": 4, "gpus": 1}))
    volume = next(volume for volume in pod["volumes"] if volume["name"] == "adapters")
    environment = environment_of(pod["containers"][0])
    assert environment["TUNESMITH_ADAPTER_CACHE_BYTES"] == str(40 * 1024**3)
    assert volume["emptyDir"] == {"sizeLimit": str(41 * 1024**3)}
    assert (environment["TUNESMITH_MAX_RANK"], environment["TUNESMITH_ADAPTER_SLOTS"]) == ("128", "8")
    assert "--max-cpu-loras 8 " in " ".join(pod["initContainers"][0]["args"])


def test_the_secret_that_opens_adapters_is_the_agents_alone_and_holds_up_no_pod() -> None:
    pod = pod_of(build(artifactSecretRef={"name": "bucket"}))
    volume = next(volume for volume in pod["volumes"] if volume["name"] == "secret-artifacts")
    assert volume["secret"] == {"secretName": "bucket", "optional": True, "defaultMode": 0o440}
    mounted = {"name": "secret-artifacts", "readOnly": True}
    mounted["mountPath"] = "/var/run/secrets/tunesmith-user/artifacts"
    assert mounted in pod["containers"][0]["volumeMounts"]
    assert mounted not in pod["initContainers"][0]["volumeMounts"]


def test_keys_of_clients_are_the_agents_alone_and_hold_up_no_pod() -> None:
    pod = pod_of(build(access={"keysSecretRef": {"name": "clients"}}))
    volume = next(volume for volume in pod["volumes"] if volume["name"] == "secret-clients")
    assert volume["secret"] == {"secretName": "clients", "optional": True, "defaultMode": 0o440}
    agent, engine = pod["containers"][0], pod["initContainers"][0]
    assert "secret-clients" in [mount["name"] for mount in agent["volumeMounts"]]
    assert "secret-clients" not in [mount["name"] for mount in engine["volumeMounts"]]
    folder = next(mount["mountPath"] for mount in agent["volumeMounts"] if mount["name"] == "secret-clients")
    assert parse_settings(agent["args"]).keys_dir == folder
    assert "args" not in pod_of(build())["containers"][0]


def test_an_agent_that_can_not_ask_for_keys_does_not_start(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_settings(["--an-argument-of-a-later-release=x"])
    assert "unrecognized arguments" in capsys.readouterr().err


def test_the_engines_queue_is_bounded() -> None:
    agent = pod_of(build(engine={"gpus": 0, "maxQueuedRequests": 9}))["containers"][0]
    variables = {name: str(value) for name, value in environment_of(agent).items()}
    assert parse_settings([], variables).queue_requests == 9


def test_the_agent_alone_sees_the_desired_state_and_the_operators_token() -> None:
    pod = pod_of(build())
    mounts = [
        {mount["mountPath"] for mount in pod[kind][0]["volumeMounts"]}
        for kind in ("containers", "initContainers")
    ]
    claims = {"/mnt/tunesmith/pvc/artifacts"}
    assert mounts[0] - mounts[1] - claims == {"/etc/tunesmith", "/var/run/secrets/tunesmith"}
    desired = next(volume for volume in pod["volumes"] if volume["name"] == "desired")
    sources = [source["configMap"] for source in desired["projected"]["sources"]]
    assert [(source["items"][0]["key"], source["optional"]) for source in sources] == [
        ("desired.json", False),
        ("state.json", True),
    ]
    environment = environment_of(pod["containers"][0])
    assert environment["TUNESMITH_DEPLOYMENT"] == "assistants"
    assert environment["TUNESMITH_OPERATOR_URL"] == ENVIRONMENT.operator_url
    assert environment["POD_UID"] == {"fieldRef": {"fieldPath": "metadata.uid"}}


def test_agent_is_told_a_tolerance_other_than_auto() -> None:
    name = "TUNESMITH_PROOF_TOLERANCE"
    assert name not in environment_of(pod_of(build())["containers"][0])
    coarse = pod_of(build(engine={"proof": {"tolerance": "0.2"}}))
    assert environment_of(coarse["containers"][0])[name] == "0.2"


def test_an_engine_without_gpus_has_time_for_a_token() -> None:
    for gpus, seconds in ((0, 120.0), (1, Settings().engine_token_seconds)):
        agent = pod_of(build(engine={"gpus": gpus}))["containers"][0]
        variables = {name: value for name, value in environment_of(agent).items() if isinstance(value, str)}
        assert parse_settings([], variables).engine_token_seconds == seconds


def test_without_gpus_the_engine_runs_on_the_cpu() -> None:
    engine = pod_of(build(engine={"gpus": 0, "maxModelLength": 256, "args": ["--seed=1"]}))["initContainers"][
        0
    ]
    assert "limits" not in engine["resources"]
    assert environment_of(engine)["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert environment_of(engine)["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    arguments = " ".join(engine["args"])
    for part in (
        "--dtype float32",
        "--enforce-eager",
        "--max-model-len 256",
        "--enable-lora",
        "--enable-prompt-tokens-details",
        "--max-loras 9",
        "--block-size 32",
    ):
        assert part in arguments
    assert arguments.endswith("--seed=1")


def test_gpus_are_taken_and_split_over() -> None:
    resources = {"requests": {"cpu": "4"}, "limits": {"memory": "32Gi"}}
    engine = pod_of(build(engine={"gpus": 2, "resources": resources}))["initContainers"][0]
    assert engine["resources"]["limits"] == {"memory": "32Gi", "nvidia.com/gpu": "2"}
    assert "--tensor-parallel-size 2" in " ".join(engine["args"])
    assert "--enforce-eager" not in engine["args"]


def arguments_of(engine: dict[str, Any]) -> str:
    return " ".join(pod_of(build(engine=engine))["initContainers"][0]["args"])


def test_media_come_from_listed_hosts_alone() -> None:
    assert "--allowed-media-domains none.invalid --enable-lora" in arguments_of({"gpus": 1})
    hosts = ["images.example.com", "other.example.com"]
    pod = pod_of(build(engine={"gpus": 1, "mediaHosts": hosts}))
    engine, agent = pod["initContainers"][0], pod["containers"][0]
    assert f"--allowed-media-domains {' '.join(hosts)} --enable-lora" in " ".join(engine["args"])
    assert environment_of(agent)["TUNESMITH_MEDIA_HOSTS"] == ",".join(hosts)
    assert environment_of(engine)["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"


@pytest.mark.parametrize(
    ("engine", "tools", "thinking"),
    [
        ({}, "hermes", "qwen3"),
        ({"toolCallParser": "mistral"}, "mistral", "qwen3"),
        ({"toolCallParser": "None", "reasoningParser": "None"}, "", ""),
    ],
)
def test_parsers_are_those_of_the_base_model_unless_they_are_written(
    engine: dict[str, Any], tools: str, thinking: str
) -> None:
    needs = EngineNeeds(tools=ToolFormat.HERMES, thinking=ThinkingFormat.SWITCHED_THINK)
    resource = World(build_adapter("one"), engine={"gpus": 1, **engine}).resource
    pod = pod_of(build_serving_deployment(resource, INPUTS, ENVIRONMENT, needs))
    arguments = pod["initContainers"][0]["args"]
    variables = environment_of(pod["containers"][0])
    for argument, variable, name in (
        ("--tool-call-parser", "TUNESMITH_TOOL_CALL_PARSER", tools),
        ("--reasoning-parser", "TUNESMITH_REASONING_PARSER", thinking),
    ):
        written = arguments[arguments.index(argument) + 1] if argument in arguments else ""
        assert (written, variables.get(variable, "")) == (name, name)
    assert ("--enable-auto-tool-choice" in arguments) == bool(tools)


def test_an_unknown_base_model_has_no_parser() -> None:
    assert "parser" not in arguments_of({"gpus": 1})


def test_the_length_is_fitted_to_the_memory_unless_it_is_written() -> None:
    assert "--max-model-len auto" in arguments_of({"gpus": 1})
    assert "--max-model-len 4096" in arguments_of({"gpus": 1, "maxModelLength": 4096})


@pytest.mark.parametrize(
    ("engine", "slots", "ready"),
    [
        ({"gpus": 1, "residentAdapters": 4}, 4, 8),
        ({"gpus": 1, "residentAdapters": 256}, 8, 512),
        ({"gpus": 0, "residentAdapters": 32}, 33, 66),
    ],
)
def test_at_most_eight_adapters_take_gpu_memory(engine: dict[str, Any], slots: int, ready: int) -> None:
    assert f"--max-loras {slots} --max-cpu-loras {ready} " in arguments_of(engine)


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ({"gpus": 4, "maxRank": 64}, True),
        ({"gpus": 1, "maxRank": 64}, False),
        ({"gpus": 4, "maxRank": 32}, False),
        ({"gpus": 6, "maxRank": 64}, False),
        ({"gpus": 4, "maxRank": 64, "args": ["--enable_expert_parallel"]}, False),
    ],
)
def test_adapters_of_high_rank_are_divided_among_gpus(engine: dict[str, Any], expected: bool) -> None:
    assert ("--fully-sharded-loras" in arguments_of(engine)) is expected


def test_nothing_that_needs_a_cuda_compiler_is_left_on() -> None:
    on_gpus, on_cpus = (
        environment_of(pod_of(build(engine={"gpus": gpus}))["initContainers"][0]) for gpus in (2, 0)
    )
    flashinfer = {"VLLM_USE_FLASHINFER_SAMPLER": "0", "VLLM_ALLREDUCE_USE_FLASHINFER": "0"}
    assert flashinfer.items() <= on_gpus.items()
    assert not flashinfer.keys() & on_cpus.keys()
    assert (on_gpus["TUNESMITH_GPUS"], on_cpus["TUNESMITH_GPUS"]) == ("2", "0")


@pytest.mark.parametrize(
    ("gpus", "size", "seconds"),
    [(0, None, 3600), (1, None, 7200), (1, 16e9, 3600), (4, 141e9, 4620), (8, 810e9, 18_000)],
)
def test_a_large_model_has_time_to_load(gpus: int, size: float | None, seconds: int) -> None:
    resource = World(build_adapter("one"), engine={"gpus": gpus}).resource
    manifest = build_serving_deployment(resource, INPUTS, ENVIRONMENT, EngineNeeds(size))
    probe = pod_of(manifest)["initContainers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == seconds
    assert manifest["spec"]["progressDeadlineSeconds"] > seconds


def test_requests_of_the_engine_are_those_that_were_written_then_those_derived() -> None:
    resources = {"requests": {"cpu": "1"}, "limits": {"memory": "9Gi"}}
    resource = World(build_adapter("one"), engine={"gpus": 1, "resources": resources}).resource
    needs = EngineNeeds(requests={"cpu": "3", "memory": "20Gi", "ephemeral-storage": "40Gi"})
    engine = pod_of(build_serving_deployment(resource, INPUTS, ENVIRONMENT, needs))["initContainers"][0]
    assert engine["resources"] == {
        "requests": {"cpu": "1", "ephemeral-storage": "40Gi"},
        "limits": {"memory": "9Gi", "nvidia.com/gpu": "1"},
    }


def test_caches_of_a_pod_have_a_limit() -> None:
    limits = {}
    for uri in ("hf://org/model", "pvc://models/base"):
        volumes = pod_of(build(baseModel={"uri": uri}))["volumes"]
        limits[uri] = next(volume for volume in volumes if volume["name"] == "model-cache")["emptyDir"]
    assert limits == {"hf://org/model": {"sizeLimit": "1Ti"}, "pvc://models/base": {"sizeLimit": "16Gi"}}


def test_a_claim_keeps_caches_for_later_pods_and_is_the_engines_alone() -> None:
    pod = pod_of(build(engine={"cacheVolume": {"claimName": "caches", "subPath": "llama"}}))
    assert {"name": "cache", "persistentVolumeClaim": {"claimName": "caches"}} in pod["volumes"]
    mount = {"name": "cache", "mountPath": "/var/cache/tunesmith", "subPath": "llama"}
    engine, agent = pod["initContainers"][0], pod["containers"][0]
    assert mount in engine["volumeMounts"]
    assert mount not in agent["volumeMounts"]
    caches = ("HF_HOME", "VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    assert all(environment_of(engine)[name].startswith("/var/cache/tunesmith/") for name in caches)


def test_variables_that_were_written_replace_those_of_the_operator() -> None:
    env = [{"name": "VLLM_USE_FLASHINFER_SAMPLER", "value": "1"}, {"name": "NCCL_DEBUG", "value": "INFO"}]
    environment = environment_of(pod_of(build(engine={"gpus": 1, "env": env}))["initContainers"][0])
    assert (environment["VLLM_USE_FLASHINFER_SAMPLER"], environment["NCCL_DEBUG"]) == ("1", "INFO")


def test_pods_with_gpus_tolerate_the_taint_of_their_nodes_and_run_in_their_runtime_class() -> None:
    template = {"runtimeClassName": "nvidia", "schedulerName": "own", "terminationGracePeriodSeconds": 600}
    pod = pod_of(build(engine={"gpus": 1, "gpuResource": "nvidia.com/mig-3g.40gb", "template": template}))
    keys = [toleration["key"] for toleration in pod["tolerations"]]
    assert keys == ["nvidia.com/gpu", "nvidia.com/mig-3g.40gb"]
    assert (pod["runtimeClassName"], pod["schedulerName"]) == ("nvidia", "own")
    assert pod["terminationGracePeriodSeconds"] == 600
    assert pod["initContainers"][0]["resources"]["limits"] == {"nvidia.com/mig-3g.40gb": "1"}
    without = pod_of(build(engine={"gpus": 0, "template": template}))
    assert not {"tolerations", "runtimeClassName"} & without.keys()
    assert pod_of(build())["terminationGracePeriodSeconds"] == 180


def test_a_hub_model_is_pinned_and_its_token_never_written_out() -> None:
    model = {"uri": "hf://org/model@0123abc", "secretRef": {"name": "hub-token"}}
    engine = pod_of(build(baseModel=model))["initContainers"][0]
    assert "--model org/model --revision 0123abc --tokenizer-revision 0123abc" in " ".join(engine["args"])
    environment = environment_of(engine)
    assert environment["HF_TOKEN"] == {"secretKeyRef": {"name": "hub-token", "key": "token"}}
    assert "HF_HUB_OFFLINE" not in environment


def test_the_users_template_places_the_pods() -> None:
    template = {"nodeSelector": {"gpu": "a100"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]}
    pod = pod_of(build(engine={"gpus": 1, "template": template}))
    assert pod["nodeSelector"] == {"gpu": "a100"}
    assert pod["tolerations"][0]["key"] == "gpu"


def test_the_users_template_reaches_serving_pods_as_it_does_pods_of_training() -> None:
    term = {"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["l40s"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    template = {
        "labels": {"team": "a", "tunesmith-own": "x"},
        "annotations": {"sidecar.istio.io/inject": "false"},
        "priorityClassName": "serving",
        "affinity": {"nodeAffinity": required},
        "topologySpreadConstraints": [{"topologyKey": "topology.kubernetes.io/zone"}],
        "volumes": [
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "32Gi"}},
            {"name": "chat", "configMap": {"name": "chat-templates"}},
        ],
        "volumeMounts": [
            {"name": "shm", "mountPath": "/dev/shm"},
            {"name": "chat", "mountPath": "/chat", "readOnly": True},
        ],
    }
    deployment = build(engine={"gpus": 1, "template": template})
    pod, metadata = pod_of(deployment), deployment["spec"]["template"]["metadata"]
    assert (metadata["labels"]["team"], metadata["annotations"]) == ("a", template["annotations"])
    assert deployment["spec"]["selector"]["matchLabels"].items() <= metadata["labels"].items()
    assert pod["priorityClassName"] == "serving"
    (nodes,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert term["matchExpressions"][0] in nodes["matchExpressions"]
    (spread,) = pod["topologySpreadConstraints"]
    assert spread["topologyKey"] == "topology.kubernetes.io/zone"
    assert spread["labelSelector"]["matchLabels"].items() <= metadata["labels"].items()
    engine, agent = pod["initContainers"][0], pod["containers"][0]
    own = {"own-shm": "/dev/shm", "own-chat": "/chat"}
    mounted = {mount["name"]: mount["mountPath"] for mount in engine["volumeMounts"]}
    assert own.items() <= mounted.items()
    assert list(mounted.values()).count("/dev/shm") == 1
    assert not own.keys() & {mount["name"] for mount in agent["volumeMounts"]}
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert (own.keys() <= volumes, "shared-memory" in volumes) == (True, False)


def test_serving_pods_take_gpus_of_any_kind() -> None:
    amd = pod_of(build(engine={"gpus": 2, "gpuResource": "amd.com/gpu"}))
    assert amd["initContainers"][0]["resources"]["limits"] == {"amd.com/gpu": "2"}
    assert ("affinity" in amd, [each["key"] for each in amd["tolerations"]]) == (False, ["amd.com/gpu"])
    claims = [{"name": "gpus", "resourceClaimTemplateName": "two-gpus"}]
    claimed = pod_of(build(engine={"gpus": 2, "template": {"resourceClaims": claims}}))
    assert claimed["resourceClaims"] == claims
    assert claimed["initContainers"][0]["resources"]["claims"] == [{"name": "gpus"}]
    assert "limits" not in claimed["initContainers"][0]["resources"]
    assert "claims" not in claimed["containers"][0]["resources"]


@pytest.mark.parametrize(
    ("replicas", "gpus", "strategy", "stops_first"),
    [
        (1, 1, "Auto", False),
        (2, 0, "Auto", False),
        (2, 1, "Auto", True),
        (1, 1, "StopFirst", True),
        (2, 1, "StartFirst", False),
    ],
)
def test_pods_are_replaced_without_a_spare_gpu(
    replicas: int, gpus: int, strategy: str, stops_first: bool
) -> None:
    update = rolling_update(replicas, Engine(gpus=gpus, update_strategy=UpdateStrategy(strategy)))
    assert update == {"maxUnavailable": int(stops_first), "maxSurge": int(not stops_first)}


def test_labels_that_people_write_are_the_pods_but_select_nothing() -> None:
    label = {"azure.workload.identity/use": "true"}
    note = {"sidecar.istio.io/inject": "false"}
    template = {"labels": label, "annotations": note, "serviceAccountName": "reader"}
    deployment = build(engine={"template": template})
    metadata = deployment["spec"]["template"]["metadata"]
    assert label.items() <= metadata["labels"].items()
    assert build()["spec"]["template"]["metadata"]["labels"].items() <= metadata["labels"].items()
    assert metadata["annotations"] == note
    assert deployment["spec"]["selector"] == build()["spec"]["selector"]
    pod = pod_of(deployment)
    assert pod["serviceAccountName"] == "reader"
    assert not {"labels", "annotations"} & pod.keys()


def test_clients_find_the_agents_under_the_resources_own_name() -> None:
    resource = World(build_adapter("one")).resource
    service = build_serving_service(resource)
    assert service["metadata"]["name"] == "assistants"
    assert service["spec"]["ports"][0]["port"] == 80
    labels = build()["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    budget = build_serving_disruption_budget(resource)
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_no_name_depends_on_images() -> None:
    resource = World(build_adapter("one")).resource
    names = {
        build_serving_deployment(resource, ServingInputs(1, "", image), ENVIRONMENT)["metadata"]["name"]
        for image in ("a:1", "b:2")
    }
    assert names == {"assistants-0f3c9d-serving"}


def test_probes_fit_the_ports_that_the_image_has() -> None:
    resource = World(build_adapter("one")).resource
    first_release = replace(INPUTS, has_monitoring_port=False)
    for inputs, names, probed in (
        (INPUTS, ["http", "metrics"], "metrics"),
        (first_release, ["http"], "http"),
    ):
        [agent] = pod_of(build_serving_deployment(resource, inputs, ENVIRONMENT))["containers"]
        assert [port["name"] for port in agent["ports"]] == names
        probes = [
            agent[kind]["httpGet"]["port"] for kind in ("startupProbe", "readinessProbe", "livenessProbe")
        ]
        assert probes == [probed] * 3


@pytest.mark.parametrize(
    ("lame_duck", "drain", "grace"), [("5s", "1m", 180), ("30s", "10m", 745), ("0s", "0s", 115)]
)
def test_a_pod_lives_as_long_as_its_agent_may_drain(lame_duck: str, drain: str, grace: int) -> None:
    pod = pod_of(build(engine={"gpus": 0, "lameDuck": lame_duck, "drain": drain}))
    assert pod["terminationGracePeriodSeconds"] == grace
    variables = {
        name: value for name, value in environment_of(pod["containers"][0]).items() if isinstance(value, str)
    }
    settings = parse_settings([], variables)
    assert settings.lame_duck_seconds + settings.drain_seconds == grace - END_SECONDS


def agent_settings(environment: Environment, **spec: Any) -> TelemetrySettings:
    """What the agent makes of its variables."""
    resource = World(build_adapter("one"), **spec).resource
    [agent] = pod_of(build_serving_deployment(resource, INPUTS, environment))["containers"]
    values = {name: value for name, value in environment_of(agent).items() if isinstance(value, str)}
    return parse_settings([], values).to_telemetry()


def test_the_agent_writes_what_the_resource_says_else_what_the_chart_says() -> None:
    silent = agent_settings(ENVIRONMENT)
    assert (silent.access_logs, silent.traces_endpoint) == ("Errors", "")
    url = "http://collector.team:4318/v1/traces"
    installed = replace(ENVIRONMENT, traces_endpoint="http://chart:4318/v1/traces", traces_ratio="0.1")
    by_chart = agent_settings(installed)
    assert (by_chart.traces_endpoint, by_chart.traces_ratio) == ("http://chart:4318/v1/traces", 0.1)
    traces = {"endpoint": url, "sampleRatio": "0"}
    own = agent_settings(installed, telemetry={"traces": traces, "accessLogs": "All"})
    assert (own.access_logs, own.traces_endpoint, own.traces_ratio) == ("All", url, 0.0)


def test_variables_of_traces_are_the_agents_too() -> None:
    variables = [{"name": "OTEL_SERVICE_NAME", "value": "mine"}, {"name": "OMP_NUM_THREADS", "value": "2"}]
    pod = pod_of(build(engine={"env": variables}))
    assert environment_of(pod["initContainers"][0])["OTEL_SERVICE_NAME"] == "mine"
    agent = environment_of(pod["containers"][0])
    assert agent["OTEL_SERVICE_NAME"] == "mine"
    assert "OMP_NUM_THREADS" not in agent


def test_policies_leave_the_way_to_a_collector_open() -> None:
    policy = build_serving_network_policy(World(build_adapter("one")).resource, ServingNetwork())
    assert policy["spec"]["policyTypes"] == ["Ingress"]


def test_pods_are_spread_over_nodes_without_waiting_for_any() -> None:
    deployment = build(replicas=3)
    [spread] = pod_of(deployment)["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["maxSkew"]) == ("kubernetes.io/hostname", 1)
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    assert spread["labelSelector"]["matchLabels"].items() <= labels


def test_serving_pods_let_in_whom_the_installation_names_and_each_other() -> None:
    resource = World(build_adapter("one")).resource
    gateway = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateway"}}}
    policy = build_serving_network_policy(resource, ServingNetwork((gateway,), ({"podSelector": {}},)))
    pods = {"podSelector": {"matchLabels": policy["spec"]["podSelector"]["matchLabels"]}}
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    allowed = {rule["ports"][0]["port"]: rule["from"] for rule in policy["spec"]["ingress"]}
    assert allowed == {8000: [pods, gateway], 8002: [{"podSelector": {}}]}
    closed = build_serving_network_policy(resource, ServingNetwork())
    # A rule without sources would let everybody in.
    assert [rule["from"] for rule in closed["spec"]["ingress"]] == [[pods]]
