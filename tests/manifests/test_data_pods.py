"""Pods that generate and prepare rows: what they share with training, and what places them on nodes of their own."""

from typing import Any

from simulation.simulated_cluster import ENVIRONMENT, START, fine_tune_job

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.finetunejob.observed import ObservedTraining
from tunesmith.decide.finetunejob.planning import plan_training
from tunesmith.decide.plan import Create
from tunesmith.manifests.run_snapshots import parse_inputs
from tunesmith.manifests.stage_jobs import build_data_job
from tunesmith_contract.stages import Stage

GKE_POOL = {"cloud.google.com/gke-accelerator": "nvidia-l4"}
DATASET = fine_tune_job()["spec"]["dataset"]
GENERATE = {
    "endpoint": {"url": "https://teacher.example/v1", "model": "large"},
    "answers": {"prompts": {"uri": "pvc://data/prompts.jsonl"}},
    "budget": {"calls": 100},
}


def prepare(
    data: dict[str, Any] | None = None, stage: Stage = Stage.PREPARE, **compute: Any
) -> dict[str, Any]:
    """Pod template of a data stage of a job with this ``dataset.compute`` and ``compute``."""
    dataset = DATASET | ({"compute": data} if data is not None else {})
    if stage is Stage.GENERATE:
        dataset |= {"generate": GENERATE}
    job = FineTuneJob.parse(fine_tune_job(dataset=dataset, compute={"gpusPerNode": 1} | compute))
    first = plan_training(job, ObservedTraining(), START, ENVIRONMENT).actions[0]
    assert isinstance(first, Create)
    manifest = build_data_job(job, parse_inputs(first.manifest), stage, 1, ENVIRONMENT)
    template: dict[str, Any] = manifest["spec"]["template"]
    return template


def resources(template: dict[str, Any]) -> dict[str, Any]:
    (container,) = template["spec"]["containers"]
    found: dict[str, Any] = container["resources"]
    return found


def test_what_chooses_gpu_nodes_is_trainings_alone() -> None:
    term = {"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["h100"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    template = {
        "nodeSelector": GKE_POOL | {"kubernetes.io/arch": "amd64", "topology.kubernetes.io/zone": "a"},
        "affinity": {"nodeAffinity": required},
        "topologySpreadConstraints": [{"topologyKey": "topology.kubernetes.io/zone"}],
        "runtimeClassName": "nvidia",
        "resourceClaims": [{"name": "gpus", "resourceClaimTemplateName": "one-gpu"}],
    }
    for stage in (Stage.PREPARE, Stage.GENERATE):
        pod = prepare(stage=stage, template=template)["spec"]
        assert pod["nodeSelector"] == {"kubernetes.io/arch": "amd64", "topology.kubernetes.io/zone": "a"}
        assert not {"runtimeClassName", "topologySpreadConstraints", "resourceClaims"} & pod.keys()
        assert "requiredDuringSchedulingIgnoredDuringExecution" not in pod["affinity"]["nodeAffinity"]
        assert "claims" not in pod["containers"][0]["resources"]


def test_nodes_without_gpus_are_preferred_until_people_choose_nodes() -> None:
    (preferred,) = prepare()["spec"]["affinity"]["nodeAffinity"][
        "preferredDuringSchedulingIgnoredDuringExecution"
    ]
    expressions = preferred["preference"]["matchExpressions"]
    assert {each["operator"] for each in expressions} == {"DoesNotExist"}
    assert {"nvidia.com/gpu.present", *GKE_POOL} <= {each["key"] for each in expressions}
    pod = prepare({"template": {"nodeSelector": GKE_POOL}})["spec"]
    assert (pod["nodeSelector"], "affinity" in pod) == (GKE_POOL, False)


def test_identity_and_what_pods_may_do_are_shared_unless_they_are_written() -> None:
    toleration = {"key": "team", "operator": "Equal", "value": "a"}
    template = {
        "serviceAccountName": "reader",
        "imagePullSecrets": [{"name": "registry"}],
        "priorityClassName": "low",
        "schedulerName": "gangs",
        "tolerations": [toleration],
        "labels": {"team": "a"},
        "annotations": {"note": "x", "kueue.x-k8s.io/podset-required-topology": "rack"},
        "volumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "volumeMounts": [{"name": "ca", "mountPath": "/ca"}],
    }
    made = prepare(template=template)
    pod = made["spec"]
    shared = ("serviceAccountName", "imagePullSecrets", "priorityClassName", "schedulerName", "tolerations")
    assert {name: pod[name] for name in shared} == {name: template[name] for name in shared}
    assert made["metadata"]["labels"]["team"] == "a"
    assert made["metadata"]["annotations"] == {"note": "x"}
    assert "own-ca" in {volume["name"] for volume in pod["volumes"]}
    own = prepare({"template": {"serviceAccountName": "own", "tolerations": []}}, template=template)["spec"]
    assert (own["serviceAccountName"], own["tolerations"]) == ("own", [])
    assert own["priorityClassName"] == "low"


def test_a_grace_period_is_the_stages_own() -> None:
    training = {"template": {"terminationGracePeriodSeconds": 900}}
    for stage, default in ((Stage.PREPARE, 30), (Stage.GENERATE, 120)):
        assert prepare(stage=stage, **training)["spec"]["terminationGracePeriodSeconds"] == default
        assert prepare(training, stage)["spec"]["terminationGracePeriodSeconds"] == 900


def test_limits_are_those_of_training_but_never_below_what_is_requested() -> None:
    limits = {"cpu": "4", "memory": "16Gi", "hugepages-2Mi": "1Gi"}
    assert resources(prepare(resources={"limits": limits})) == {
        "requests": {"cpu": "500m", "memory": "1Gi"},
        "limits": {"cpu": "4", "memory": "16Gi"},
    }
    small = resources(prepare(resources={"limits": {"memory": "512Mi"}}))
    assert small == {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}
    assert "limits" not in resources(prepare())


def test_requests_and_limits_of_their_own_come_first() -> None:
    own = {"resources": {"requests": {"memory": "4Gi"}, "limits": {"memory": "6Gi"}}}
    training = {"limits": {"cpu": "4", "memory": "16Gi"}}
    for stage, cores in ((Stage.PREPARE, "500m"), (Stage.GENERATE, "250m")):
        assert resources(prepare(own, stage, resources=training)) == {
            "requests": {"cpu": cores, "memory": "4Gi"},
            "limits": {"cpu": "4", "memory": "6Gi"},
        }
