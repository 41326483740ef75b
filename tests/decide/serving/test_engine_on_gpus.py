"""Engines on GPUs: the image for them, the condition ``Fits``, and updates that wait for a spare GPU."""

from dataclasses import replace
from typing import Any

import pytest
from simulation.serving_world import ENVIRONMENT, START, World, build_adapter
from training_memory.published_memory import LLAMA_3_1_8B, LLAMA_3_3_70B

from tunesmith.decide.serving.planning import REFUSED_SECONDS
from tunesmith.manifests.result_config_map import RECORD_KEY, AttemptOutcome, AttemptRecord
from tunesmith.manifests.serving_deployment import set_number
from tunesmith_contract.answer_formats import ToolFormat
from tunesmith_contract.report import ModelReport, Outcome, RunReport
from tunesmith_contract.stages import Stage


def gpu_world(pods: int = 1, **engine: Any) -> World:
    return World(build_adapter("one"), replicas=1, pods=pods, engine={"gpus": 1, **engine})


def record_of(model: ModelReport) -> dict[str, Any]:
    """The record of a preparation that read the model."""
    report = RunReport(stage=Stage.PREPARE, outcome=Outcome.SUCCEEDED, model=model)
    record = AttemptRecord(
        stage=Stage.PREPARE,
        attempt=1,
        outcome=AttemptOutcome.SUCCEEDED,
        reason="Prepared",
        report=report,
        ended_at=START,
    )
    return {"metadata": {"name": "record", "labels": {}}, "data": {RECORD_KEY: record.to_json()}}


def node_of(gibibytes: int, name: str = "node") -> dict[str, Any]:
    labels = {"nvidia.com/gpu.memory": str(gibibytes * 1024)}
    return {"metadata": {"name": name, "labels": labels}, "status": {"allocatable": {"nvidia.com/gpu": "8"}}}


def image_of(world: World) -> str:
    """Image of the pods that were begun last."""
    deployment = max(world.of_kind("Deployment"), key=set_number)
    return str(deployment["spec"]["template"]["spec"]["initContainers"][0]["image"])


def test_gpus_choose_the_image_and_a_change_of_them_another_one() -> None:
    world = gpu_world()
    world.settle()
    assert image_of(world) == "registry/serving-gpu:1"
    world.spec |= {"engine": {"gpus": 0}}
    world.settle()
    assert image_of(world) == "registry/serving:1"
    world.spec |= {"engine": {"gpus": 0, "image": "registry/mine:1"}}
    world.settle()
    world.spec |= {"engine": {"gpus": 2, "image": "registry/mine:1"}}
    world.settle()
    assert image_of(world) == "registry/mine:1"


def test_without_an_image_for_gpus_no_pod_is_started_until_there_is_one() -> None:
    world = gpu_world(pods=0)
    world.environment = replace(ENVIRONMENT, serving_gpu_image="")
    world.settle()
    assert world.find("Deployment") is None
    for kind in ("Stalled", "Ready"):
        condition = world.condition(kind)
        assert condition["reason"] == "NoServingImage"
        assert "chart's value servingGpuImage" in condition["message"]
    assert world.condition("Reconciling")["status"] == "False"
    assert world.plan.requeue_after is None
    world.environment = ENVIRONMENT
    world.settle()
    assert image_of(world) == "registry/serving-gpu:1"
    assert world.condition("Stalled")["status"] == "False"


def test_running_pods_stay_when_the_image_for_gpus_is_missing() -> None:
    world = World(build_adapter("one"))
    world.environment = replace(ENVIRONMENT, serving_gpu_image="")
    world.settle()
    before = world.find("Deployment")
    world.spec |= {"engine": {"gpus": 1}}
    world.settle()
    assert world.find("Deployment") == before
    assert world.condition("Stalled")["reason"] == "NoServingImage"


def test_inputs_of_an_earlier_release_keep_their_image() -> None:
    world = gpu_world()
    world.settle()
    key = next(key for key in world.objects if "inputs" in key[1])
    inputs = '{"image":"registry/earlier:1","requested":""}'
    world.objects[key]["data"]["inputs.json"] = inputs
    world.spec |= {"artifactVolumes": [{"claim": "artifacts"}, {"claim": "more"}]}
    world.settle()
    assert image_of(world) == "registry/earlier:1"


def test_what_fits_is_said_with_numbers_and_the_nodes_are_not_read_again() -> None:
    world = gpu_world()
    world.records, world.nodes = (record_of(LLAMA_3_1_8B),), (node_of(80),)
    assert world.observe().nodes is not None
    world.settle()
    fits = world.condition("Fits")
    assert (fits["status"], fits["reason"]) == ("True", "Fits")
    assert "weights 15.0 GiB" in fits["message"]
    assert world.observe().nodes is None
    world.set_adapter(build_adapter("two"))
    assert world.observe().nodes is not None


def test_what_may_not_fit_is_said_before_the_pods_start_which_they_do() -> None:
    world = gpu_world(maxModelLength=131_072)
    world.records, world.nodes = (record_of(LLAMA_3_1_8B),), (node_of(22),)
    world.settle()
    assert (world.condition("Fits")["status"], world.condition("Fits")["reason"]) == ("False", "DoesNotFit")
    assert world.condition("Stalled")["status"] == "False"
    assert world.find("Deployment") is not None


def test_weights_that_exceed_every_gpu_start_no_pod_until_a_larger_one_joins() -> None:
    world = gpu_world(pods=0)
    world.records, world.nodes = (record_of(LLAMA_3_3_70B),), (node_of(80), node_of(24, "small"))
    world.settle()
    assert world.find("Deployment") is None
    assert world.condition("Stalled")["reason"] == world.condition("Fits")["reason"] == "DoesNotFit"
    assert world.plan.requeue_after == REFUSED_SECONDS
    world.nodes = (*world.nodes, node_of(180, "large"))
    world.settle()
    assert world.find("Deployment") is not None
    assert world.condition("Stalled")["status"] == "False"


def labeled_node(name: str, labels: dict[str, str], **spec: Any) -> dict[str, Any]:
    status = {"allocatable": {"nvidia.com/gpu": "8"}}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": status}


OLD_DRIVER = {"nvidia.com/gpu.memory": "81559", "nvidia.com/cuda.driver-version.full": "535.274.02"}
T4 = {"nvidia.com/gpu.product": "Tesla-T4"}
V100 = {"nvidia.com/gpu.product": "Tesla-V100-SXM2-32GB"}


@pytest.mark.parametrize(
    ("labels", "reason", "message"),
    [
        (
            OLD_DRIVER,
            "DriverTooOld",
            "driver 535.274.02, and CUDA 13 of the serving image needs 580.65.06 or newer (old). Update the driver",
        ),
        (
            V100,
            "UnsupportedGPU",
            "has compute capability 7.0, and the serving image needs 7.5 or higher (old). GPUs with",
        ),
    ],
)
@pytest.mark.parametrize("records", [(), (record_of(LLAMA_3_1_8B),)])
def test_gpus_that_can_not_be_used_start_no_pod_until_others_join(
    records: tuple[Any, ...], labels: dict[str, str], reason: str, message: str
) -> None:
    world = gpu_world(pods=0)
    world.records, world.nodes = records, (labeled_node("old", labels),)
    world.settle()
    assert world.find("Deployment") is None
    for kind in ("Fits", "Stalled", "Ready"):
        assert world.condition(kind)["reason"] == reason
    assert world.condition("Fits")["message"].startswith("No pod is started.")
    assert message in world.condition("Fits")["message"]
    assert "engine.template.nodeSelector, or write engine.gpuMemory" in world.condition("Fits")["message"]
    assert world.plan.requeue_after == REFUSED_SECONDS
    world.nodes = (*world.nodes, node_of(80, "new"))
    world.settle()
    assert world.find("Deployment") is not None
    fits = world.condition("Fits")
    assert (fits["status"], fits["reason"]) == (("True", "Fits") if records else ("Unknown", "NotEstimated"))
    assert "The pods are kept off nodes: " in fits["message"]
    assert world.condition("Stalled")["status"] == "False"
    assert world.observe().nodes is None


@pytest.mark.parametrize(
    ("labels", "cuda", "engine"),
    [
        (T4, 13, {}),
        (OLD_DRIVER, 12, {}),
        (OLD_DRIVER, 13, {"image": "registry/mine:1"}),
        (OLD_DRIVER, 13, {"gpuMemory": "80Gi"}),
    ],
)
def test_gpus_that_the_image_can_use_start_pods(
    labels: dict[str, str], cuda: int, engine: dict[str, Any]
) -> None:
    world = gpu_world(pods=0, **engine)
    world.environment = replace(ENVIRONMENT, serving_gpu_cuda=cuda)
    world.nodes = (labeled_node("old", labels),)
    world.settle()
    assert world.find("Deployment") is not None


def test_tolerations_of_the_installation_reach_nodes_and_pods_are_kept_off_unusable_ones() -> None:
    world = gpu_world()
    taint = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
    labels = {"nvidia.com/gpu.memory": "81559", "nvidia.com/gpu.replicas": "2"}
    world.records, world.nodes = (record_of(LLAMA_3_1_8B),), (labeled_node("gpu", labels, taints=[taint]),)
    tolerations = ({"key": "sku", "operator": "Exists"},)
    world.environment = replace(ENVIRONMENT, gpu_tolerations=tolerations)
    world.settle()
    assert world.condition("Fits")["status"] == "True"
    assert "Up to 2 pods share a GPU" in world.condition("Fits")["message"]
    deployment = world.find("Deployment")
    assert deployment is not None
    affinity = deployment["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    excluded = {each["key"]: each["values"] for each in term["matchExpressions"]}
    assert "535" in excluded["nvidia.com/cuda.driver-version.major"]
    assert excluded["nvidia.com/gpu.family"] == ["kepler", "maxwell", "pascal", "volta"]


def test_pods_without_gpus_may_run_on_any_node() -> None:
    world = World(build_adapter("one"), engine={"gpus": 0})
    world.settle()
    deployment = world.find("Deployment")
    assert deployment is not None
    assert "affinity" not in deployment["spec"]["template"]["spec"]


@pytest.mark.parametrize(
    ("engine", "records", "nodes", "reason"),
    [
        ({}, (), (node_of(80),), "NotEstimated"),
        ({"args": ["--quantization=fp8"]}, (record_of(LLAMA_3_1_8B),), (node_of(80),), "NotEstimated"),
        ({}, (record_of(LLAMA_3_1_8B),), (), "GPUMemoryUnknown"),
        ({"gpuMemory": "80Gi"}, (record_of(LLAMA_3_1_8B),), (), "Fits"),
        (
            {"args": ["--gpu-memory-utilization", "0.5"]},
            (record_of(LLAMA_3_1_8B),),
            (node_of(24),),
            "DoesNotFit",
        ),
        ({"args": ["--gpu_memory_utilization=0.99"]}, (record_of(LLAMA_3_1_8B),), (node_of(24),), "Fits"),
        ({"args": ["--gpu-memory-utilization=most"]}, (record_of(LLAMA_3_1_8B),), (node_of(80),), "Fits"),
    ],
)
def test_what_is_not_known_is_said_and_starts_pods(
    engine: dict[str, Any], records: tuple[Any, ...], nodes: tuple[Any, ...], reason: str
) -> None:
    world = gpu_world(**engine)
    world.records, world.nodes = records, nodes
    world.settle()
    assert world.condition("Fits")["reason"] == reason
    assert world.find("Deployment") is not None


def test_the_verdict_comes_once_a_job_has_read_the_model() -> None:
    world = gpu_world()
    world.nodes = (node_of(80),)
    world.settle()
    assert world.condition("Fits")["status"] == "Unknown"
    world.records = (record_of(LLAMA_3_1_8B),)
    world.settle()
    assert world.condition("Fits")["status"] == "True"
    world.records = ()
    world.settle()
    assert world.condition("Fits")["status"] == "True"


def test_an_engine_on_cpus_has_no_such_condition() -> None:
    world = gpu_world()
    world.settle()
    world.spec |= {"engine": {"gpus": 0}}
    world.generation += 1
    world.settle()
    assert "Fits" not in {condition["type"] for condition in world.status["conditions"]}


def test_requests_and_time_to_start_come_from_the_size_of_the_model() -> None:
    world = World(build_adapter("one"), engine={"gpus": 4})
    world.records, world.nodes = (record_of(LLAMA_3_3_70B),), (node_of(80),)
    world.settle()
    deployment = world.find("Deployment")
    assert deployment is not None
    engine = deployment["spec"]["template"]["spec"]["initContainers"][0]
    assert int(engine["resources"]["requests"]["memory"].removesuffix("Gi")) > 32
    assert engine["startupProbe"]["failureThreshold"] * 5 > 4000
    assert world.status["engineRequests"] == {"cpu": "6", "memory": engine["resources"]["requests"]["memory"]}


def test_requests_that_were_written_are_shown_and_the_least_for_an_unknown_model() -> None:
    resources = {"requests": {"cpu": "2"}, "limits": {"memory": "8Gi"}}
    world = gpu_world(resources=resources)
    world.settle()
    assert world.status["engineRequests"] == {"cpu": "2", "memory": "8Gi"}
    world.spec |= {"engine": {"gpus": 0, "updateStrategy": "StopFirst"}}
    world.settle()
    assert world.status["engineRequests"] == {"cpu": "250m", "memory": "1Gi"}


def stuck_world(**engine: Any) -> World:
    """A lone pod answers, and its successor finds no GPU."""
    world = gpu_world(**engine)
    world.settle()
    key = next(key for key in world.objects if key[0] == "Deployment")
    world.objects[key]["status"]["updatedReplicas"] = 0
    world.add_unschedulable_pod("pod-1", "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
    world.settle()
    return world


def test_an_update_that_waits_for_a_spare_gpu_says_so_and_what_to_do() -> None:
    world = stuck_world()
    ready = world.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("False", "WaitingForGPU")
    assert "pod-1 waits for 1 spare GPUs" in ready["message"]
    assert "Insufficient nvidia.com/gpu" in ready["message"]
    assert "engine.updateStrategy: StopFirst" in ready["message"]


def test_the_other_order_frees_the_gpu_and_replaces_no_pod_by_itself() -> None:
    world = stuck_world()
    before = world.find("Deployment")
    world.spec |= {"engine": {"gpus": 1, "updateStrategy": "StopFirst", "gpuMemory": "80Gi"}}
    world.settle()
    after = world.find("Deployment")
    assert before is not None
    assert after is not None
    assert after["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}
    assert after["spec"]["template"] == before["spec"]["template"]
    assert world.condition("Ready")["reason"] == "Unschedulable"


@pytest.mark.parametrize("gpus", [0, 1])
def test_parsers_follow_the_base_model_and_replace_no_pod_by_themselves(gpus: int) -> None:
    world = World(build_adapter("one"), engine={"gpus": gpus})
    world.settle()
    before = world.find("Deployment")
    world.records = (record_of(LLAMA_3_1_8B.model_copy(update={"tools": ToolFormat.LLAMA_3})),)
    world.settle()
    assert world.find("Deployment") == before
    world.spec |= {"engine": {"gpus": gpus, "maxRank": 16}}
    world.settle()
    after = max(world.of_kind("Deployment"), key=set_number)
    arguments = after["spec"]["template"]["spec"]["initContainers"][0]["args"]
    assert arguments[arguments.index("--tool-call-parser") + 1] == "llama3_json"


def test_the_resource_that_earlier_releases_wrote_replaces_no_pods() -> None:
    """The API server wrote the default into each resource, and keeps it where the default is gone."""
    world = gpu_world(updateStrategy="StopFirst")
    world.settle()
    template = world.find("Deployment")
    world.spec |= {"engine": world.spec["engine"] | {"gpuResource": "nvidia.com/gpu"}}
    world.settle()
    assert world.find("Deployment") == template
    world.spec |= {"engine": world.spec["engine"] | {"gpuResource": "nvidia.com/gpu.shared"}}
    world.settle()
    assert world.find("Deployment") != template
