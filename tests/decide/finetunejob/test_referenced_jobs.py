"""What a job needs before it begins: earlier jobs, claims that nodes can share, Secrets."""

from dataclasses import replace
from typing import Any

import pytest
from simulation.simulated_cluster import eval_run, fine_tune_job
from simulation.training_world import World, created, training, world

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.decide.evalrun.config import ResolvedEvaluation, resolve_evaluation
from tunesmith.decide.evalrun.sides import SideSources
from tunesmith.decide.finetunejob.observed import RelatedObjects
from tunesmith.manifests.run_snapshots import parse_inputs, parse_run
from tunesmith_contract.labels import ArgillaSource
from tunesmith_contract.report import Failure
from tunesmith_contract.run_config import PrepareConfig

ARTIFACT = {"uri": f"s3://artifacts/team/sha256/{'b' * 64}", "digest": f"sha256:{'b' * 64}"}
ON_EARLIER = {"baseModel": {"fineTuneJobRef": {"name": "earlier"}}}
INPUTS = ("ConfigMap", "expenses-0f3c9d-inputs")
RUN = ("ConfigMap", "expenses-0f3c9d-run")


def earlier(phase: str = "Succeeded", kind: str = "LoRA", **spec: Any) -> FineTuneJob:
    """The job that another begins with."""
    body = fine_tune_job(baseModel={"uri": "hf://org/model@main", "secretRef": {"name": "hub"}}, **spec)
    body["metadata"]["name"] = "earlier"
    resolved = {"baseModel": "hf://org/model@main", "baseModelRevision": "c0ffee"}
    done = {"artifact": ARTIFACT | {"kind": kind}} if phase == "Succeeded" else {}
    body["status"] = {
        "phase": phase,
        "resolved": resolved,
        "failure": {"category": "DataError", "message": "line 7"},
    }
    body["status"] |= done
    return FineTuneJob.parse(body)


def after(found: FineTuneJob | None, **spec: Any) -> World:
    """A job that names the earlier one, seen once."""
    cluster = World(fine_tune_job(**(ON_EARLIER | spec)))
    cluster.related = RelatedObjects(earlier={"earlier": found})
    cluster.reconcile()
    return cluster


def pod_of(cluster: World) -> dict[str, Any]:
    pod: dict[str, Any] = cluster.job()["spec"]["template"]["spec"]
    return pod


def secrets_of(cluster: World) -> dict[str, str]:
    """Folder to Secret of the live attempt."""
    pod = pod_of(cluster)
    names = {item["name"]: item["secret"]["secretName"] for item in pod["volumes"] if "secret" in item}
    mounts = pod["containers"][0]["volumeMounts"]
    assert all(mount["readOnly"] for mount in mounts if mount["name"] in names)
    root = "/var/run/secrets/tunesmith-user/"
    return {
        mount["mountPath"].removeprefix(root): names[mount["name"]]
        for mount in mounts
        if mount["name"] in names
    }


def test_an_earlier_job_is_waited_for_and_its_adapter_goes_on() -> None:
    cluster = after(earlier("Training"))
    assert cluster.status["phase"] == "Pending"
    ready = cluster.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("Unknown", "WaitingForJob")
    assert ready["message"] == 'FineTuneJob "earlier" has not succeeded yet: it is Training.'
    assert not cluster.objects
    cluster.related = RelatedObjects(earlier={"earlier": earlier()})
    assert created(cluster.reconcile())[0] == INPUTS[1]
    inputs = parse_inputs(cluster.objects[INPUTS])
    assert inputs.config.base_model == "hf://org/model@c0ffee"
    assert inputs.initial is not None
    assert (inputs.initial.uri, inputs.initial.digest) == (ARTIFACT["uri"], ARTIFACT["digest"])
    assert inputs.secrets == {"base-model": "hub"}
    cluster.related = RelatedObjects()
    cluster.succeed("prepare")
    assert parse_run(cluster.objects[RUN]).initial == inputs.initial
    assert cluster.status["resolved"]["initialDigest"] == ARTIFACT["digest"]


def test_an_earlier_jobs_whole_model_is_the_base_model() -> None:
    output = {"uri": "s3://artifacts/team", "secretRef": {"name": "bucket"}}
    workspace = {"uri": "pvc://work"}
    cluster = after(earlier(kind="Model", output=output, workspace=workspace))
    inputs = parse_inputs(cluster.objects[INPUTS])
    assert inputs.config.base_model == ARTIFACT["uri"]
    assert inputs.initial is None
    assert inputs.token_secret == ""


def test_a_missing_earlier_job_is_waited_for_as_long_as_a_person_takes() -> None:
    cluster = after(None)
    ready = cluster.condition("Ready")
    assert ready["status"] == "False"
    assert ready["message"] == 'FineTuneJob "earlier" does not exist in namespace team: create it.'
    cluster.pass_time(599)
    cluster.reconcile()
    assert cluster.status["phase"] == "Pending"
    cluster.pass_time(1)
    cluster.reconcile()
    assert cluster.status["phase"] == "Failed"
    assert cluster.condition("Stalled")["reason"] == "EarlierJobFailed"
    cluster.forget_status()
    cluster.related = RelatedObjects(earlier={"earlier": earlier()})
    cluster.reconcile()
    assert cluster.status["phase"] == "Failed"


def test_time_in_which_the_earlier_job_ran_is_not_counted_against_a_missing_one() -> None:
    cluster = after(earlier("Training"))
    cluster.pass_time(10**5)
    cluster.related = RelatedObjects(earlier={"earlier": None})
    cluster.reconcile()
    assert cluster.status["phase"] == "Pending"


def test_patience_with_a_missing_job_begins_when_it_is_waited_for() -> None:
    cluster = after(None)
    for condition in cluster.status["conditions"]:
        condition |= {"reason": "Refused", "message": "exceeded quota"}
    cluster.pass_time(10**5)
    cluster.reconcile()
    assert (cluster.status["phase"], cluster.condition("Ready")["reason"]) == ("Pending", "WaitingForJob")
    cluster.pass_time(599)
    cluster.reconcile()
    assert cluster.status["phase"] == "Pending"
    cluster.pass_time(1)
    cluster.reconcile()
    assert cluster.status["phase"] == "Failed"


def test_a_failed_earlier_job_is_named() -> None:
    cluster = after(earlier("Failed"))
    assert cluster.status["phase"] == "Failed"
    assert "line 7" in cluster.status["failure"]["message"]
    assert not cluster.live_jobs()


def test_a_reward_model_of_an_earlier_job_is_followed() -> None:
    rewards = [
        {"name": "judge", "model": {"fineTuneJobRef": {"name": "earlier"}, "secretRef": {"name": "bucket"}}}
    ]
    cluster = World(fine_tune_job(method={"rloo": {"rewards": rewards}}))
    cluster.related = RelatedObjects(earlier={"earlier": earlier(kind="RewardAdapter")})
    cluster.reconcile()
    config = parse_inputs(cluster.objects[INPUTS]).config
    assert isinstance(config, PrepareConfig)
    (reward,) = config.method.rewards
    assert reward.model is not None
    assert (reward.model.uri, reward.model.base_model) == (ARTIFACT["uri"], "hf://org/model@c0ffee")
    assert secrets_of(cluster) == {}
    cluster.related = RelatedObjects()
    cluster.succeed("prepare")
    assert secrets_of(cluster) == {"reward-judge": "bucket"}


@pytest.mark.parametrize(
    ("modes", "refused"),
    [(("ReadWriteOnce",), True), (("ReadWriteOncePod",), True), (("ReadWriteMany",), False), (None, False)],
)
def test_several_nodes_need_claims_that_they_can_share(modes: tuple[str, ...] | None, refused: bool) -> None:
    cluster = World(fine_tune_job(compute={"nodes": 2, "gpusPerNode": 1}))
    claims = {"models": ("ReadOnlyMany",)} | ({"artifacts": modes} if modes else {})
    cluster.related = RelatedObjects(claims=claims)
    cluster.reconcile()
    assert (cluster.status["phase"] == "Failed") is refused
    if refused:
        assert cluster.condition("Stalled")["reason"] == "ClaimNotShared"
        message = cluster.status["failure"]["message"]
        assert message.startswith(
            f'PersistentVolumeClaim "artifacts" is {modes and modes[0]}: pods on 2 nodes'
        )
        assert "spec.output.uri" in message


def test_several_nodes_share_the_models_that_they_learn_from() -> None:
    teacher = {"distillation": {"teacher": {"uri": "pvc://teachers/large"}}}
    cluster = World(fine_tune_job(method=teacher, compute={"nodes": 2, "gpusPerNode": 1}))
    cluster.related = RelatedObjects(claims={"teachers": ("ReadWriteOnce",)})
    cluster.reconcile()
    message = cluster.status["failure"]["message"]
    assert 'PersistentVolumeClaim "teachers" is ReadWriteOnce' in message
    assert "spec.method.distillation.teacher.uri" in message


def test_several_nodes_share_their_cache() -> None:
    compute = {"nodes": 2, "gpusPerNode": 1, "cacheVolume": {"claimName": "caches"}}
    cluster = World(fine_tune_job(compute=compute))
    cluster.related = RelatedObjects(claims={"caches": ("ReadWriteOnce",)})
    cluster.reconcile()
    message = cluster.status["failure"]["message"]
    assert message == (
        'PersistentVolumeClaim "caches" is ReadWriteOnce: pods on 2 nodes can\'t all mount it. Name a ReadWriteMany '
        "claim in spec.compute.cacheVolume.claimName, or write compute.nodes: 1."
    )


def test_a_missing_cache_is_named_with_its_field() -> None:
    cluster = training(compute={"cacheVolume": {"claimName": "caches"}})
    missing = '0/1 nodes are available: persistentvolumeclaim "caches" not found.'
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": missing}
    cluster.pod_of(cluster.job())["status"] = {"phase": "Pending", "conditions": [scheduled]}
    cluster.reconcile()
    assert cluster.condition("Ready")["reason"] == "VolumeClaimNotFound"
    assert "correct spec.compute.cacheVolume.claimName" in cluster.condition("Ready")["message"]


def test_one_node_needs_none() -> None:
    cluster = World(fine_tune_job())
    cluster.related = RelatedObjects(claims={"artifacts": ("ReadWriteOnce",)})
    cluster.reconcile()
    assert cluster.status["phase"] == "Preparing"


SECRETS: dict[str, Any] = {
    "baseModel": {"uri": "s3://models/tiny", "secretRef": {"name": "models"}},
    "dataset": {
        "train": {"uri": "s3://rows/train.jsonl", "secretRef": {"name": "rows"}},
        "validation": {"uri": "gs://rows/validation.jsonl", "secretRef": {"name": "held-out"}},
    },
    "workspace": {"uri": "s3://work/team", "secretRef": {"name": "work"}},
    "output": {"uri": "oci://registry.local/team/model", "secretRef": {"name": "registry"}},
    "tracking": {"mlflow": {"experiment": "x", "secretRef": {"name": "mlflow"}}},
}


def test_each_stage_gets_the_secrets_that_it_needs_and_no_other() -> None:
    cluster = world(**SECRETS)
    assert secrets_of(cluster) == {
        "base-model": "models",
        "train": "rows",
        "validation": "held-out",
        "workspace": "work",
        "output": "registry",
    }
    assert "HF_TOKEN" not in {item["name"] for item in pod_of(cluster)["containers"][0]["env"]}
    cluster.succeed("prepare")
    assert secrets_of(cluster) == {
        "base-model": "models",
        "workspace": "work",
        "output": "registry",
        "mlflow": "mlflow",
    }


def test_a_missing_secret_of_a_volume_is_named_from_its_nodes_event() -> None:
    cluster = world(**SECRETS)
    pod = cluster.pod_of(cluster.job())
    state = {"waiting": {"reason": "ContainerCreating"}}
    pod["status"] = {"phase": "Pending", "containerStatuses": [{"name": "trainer", "state": state}]}
    note = 'MountVolume.SetUp failed for volume "secret-train" : secret "rows" not found'
    cluster.related = replace(cluster.related, mount_failures=(note,))
    cluster.reconcile()
    assert cluster.condition("Ready")["reason"] == "SecretNotFound"
    assert cluster.condition("Ready")["message"] == (
        'Secret "rows" does not exist in namespace team: create it, or correct spec.dataset.train.secretRef.name.'
    )


def test_what_people_bring_reaches_the_pods() -> None:
    template = {
        "labels": {"team": "a"},
        "annotations": {"kueue.x-k8s.io/podset-required-topology": "rack"},
        "priorityClassName": "high",
        "volumes": [{"name": "cache", "emptyDir": {}}],
        "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
        "topologySpreadConstraints": [{"topologyKey": "zone"}],
    }
    cluster = training(compute={"gpusPerNode": 2, "template": template})
    made = cluster.job()["spec"]["template"]
    assert made["metadata"]["labels"]["team"] == "a"
    assert made["metadata"]["labels"]["tunesmith.dev/stage"] == "train"
    assert made["metadata"]["annotations"] == template["annotations"]
    pod = made["spec"]
    assert pod["priorityClassName"] == "high"
    assert {"name": "own-cache", "emptyDir": {"medium": ""}} in pod["volumes"]
    mounts = pod["containers"][0]["volumeMounts"]
    assert {"name": "own-cache", "mountPath": "/cache", "readOnly": False} in mounts
    (spread,) = pod["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"]["tunesmith.dev/stage"] == "train"
    assert "volumeMounts" not in pod


def test_a_reward_model_can_not_be_judged_by_its_answers() -> None:
    sources = SideSources({"expenses": earlier(kind="RewardAdapter")})
    refused = resolve_evaluation(EvalRun.parse(eval_run()), sources)
    assert isinstance(refused, Failure)
    assert "reward model" in refused.message


def test_a_whole_model_is_judged_beside_its_base() -> None:
    sources = SideSources({"expenses": earlier(kind="Model")})
    resolved = resolve_evaluation(EvalRun.parse(eval_run()), sources)
    assert isinstance(resolved, ResolvedEvaluation)
    config = resolved.config
    assert config.base_model == "hf://org/model@c0ffee"
    assert config.sides[0].adapter is not None
    assert config.sides[0].adapter.uri == ARTIFACT["uri"]


def test_labels_are_pulled_with_the_key_of_their_secret() -> None:
    source = {"url": "http://argilla.team.svc:6900", "dataset": "tone", "minAnnotators": 2}
    dataset = {"train": {"argilla": source, "secretRef": {"name": "labels-key"}}}
    cluster = world(dataset=dataset)
    config = parse_inputs(cluster.objects[INPUTS]).config
    assert isinstance(config, PrepareConfig)
    assert config.train == ()
    assert config.argilla == ArgillaSource(
        url="http://argilla.team.svc:6900", dataset="tone", min_annotators=2
    )
    assert secrets_of(cluster)["train"] == "labels-key"
