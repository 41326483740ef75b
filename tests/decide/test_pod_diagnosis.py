"""One diagnosis of pods, told by runs and by serving pods in their own words."""

from dataclasses import replace

import pytest
from simulation.run_objects import after, build_job, build_pod

from tunesmith.api.pod_template import PodTemplate
from tunesmith.api.reasons import AdapterDeploymentReason, RunReason
from tunesmith.decide.pod_diagnosis import PodProblem, diagnose_pod
from tunesmith.decide.run.outbound import authority_fields, proxy_secret_fields
from tunesmith.decide.run.references import References
from tunesmith.decide.run.waiting import NO_CONTAINER_DELAY, find_waiting
from tunesmith.decide.serving.pods.pod_problem import find_pod_problem
from tunesmith.manifests.objects import KubernetesObject
from tunesmith.manifests.outbound import CABundle, Outbound

REFERENCES = References(
    "team", {"secret://hub": "spec.baseModel.secretRef.name", "pvc://data": "spec.dataset.train.uri"}
)


def waiting_pod(reason: str, message: str = "") -> KubernetesObject:
    """A pod whose container waits."""
    pod = build_pod()
    del pod["status"]["startTime"]
    pod["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": reason, "message": message}}
    return pod


def unscheduled_pod(message: str) -> KubernetesObject:
    """A pod that the scheduler refused."""
    condition = {"type": "PodScheduled", "status": "False", "message": message}
    pod = build_pod(conditions=(condition,))
    pod["status"] |= {"containerStatuses": []}
    return pod


IMAGE = (
    "ErrImagePull ImagePullBackOff InvalidImageName ErrImageNeverPull ImageInspectError RegistryUnavailable"
)


@pytest.mark.parametrize("reason", IMAGE.split())
def test_every_kind_of_image_error_is_told_by_both(reason: str) -> None:
    pod = waiting_pod(reason, "no such image")
    waiting, problem = find_waiting(build_job(), [pod], REFERENCES, after(1)), find_pod_problem(pod)
    assert waiting is not None
    assert problem is not None
    advice = "can't be pulled: correct its name, or add imagePullSecrets: no such image"
    assert (waiting.reason, waiting.message) == (RunReason.IMAGE_NOT_PULLED, f'Image "trainer:1" {advice}')
    assert problem.reason is AdapterDeploymentReason.IMAGE_NOT_PULLED
    assert problem.message == f"container trainer: {reason}: no such image"


@pytest.mark.parametrize(
    ("pod", "problem", "run", "sentence", "serving"),
    [
        (
            waiting_pod("CreateContainerConfigError", 'secret "hub" not found'),
            PodProblem.SECRET_NOT_FOUND,
            RunReason.SECRET_NOT_FOUND,
            'Secret "hub" does not exist in namespace team: create it, or correct spec.baseModel.secretRef.name.',
            AdapterDeploymentReason.SECRET_NOT_FOUND,
        ),
        (
            waiting_pod("CreateContainerConfigError", "couldn't find key token in Secret team/hub"),
            PodProblem.SECRET_KEY_NOT_FOUND,
            RunReason.SECRET_NOT_FOUND,
            'Secret "hub" has no key "token": add it.',
            AdapterDeploymentReason.SECRET_NOT_FOUND,
        ),
        (
            waiting_pod("CreateContainerConfigError", 'configmap "rows" not found'),
            PodProblem.CONFIG_MAP_NOT_FOUND,
            RunReason.CONFIG_MAP_NOT_FOUND,
            'ConfigMap "rows" does not exist in namespace team: create it, or correct the spec.',
            AdapterDeploymentReason.ENGINE_STARTING,
        ),
        (
            waiting_pod("RunContainerError", "exec: no such file"),
            PodProblem.CONTAINER_NOT_CREATED,
            RunReason.CONTAINER_NOT_STARTED,
            "The container can't be started: exec: no such file",
            AdapterDeploymentReason.ENGINE_STARTING,
        ),
        (
            unscheduled_pod('persistentvolumeclaim "data" not found'),
            PodProblem.VOLUME_CLAIM_NOT_FOUND,
            RunReason.VOLUME_CLAIM_NOT_FOUND,
            'PersistentVolumeClaim "data" does not exist in namespace team: create it, or correct '
            "spec.dataset.train.uri.",
            AdapterDeploymentReason.VOLUME_CLAIM_NOT_FOUND,
        ),
        (
            unscheduled_pod("0/3 nodes are available"),
            PodProblem.UNSCHEDULABLE,
            RunReason.UNSCHEDULABLE,
            "No node takes the pod: 0/3 nodes are available",
            AdapterDeploymentReason.UNSCHEDULABLE,
        ),
    ],
)
def test_both_tell_the_same_problem(
    pod: KubernetesObject,
    problem: PodProblem,
    run: RunReason,
    sentence: str,
    serving: AdapterDeploymentReason,
) -> None:
    diagnosis, told = diagnose_pod(pod), find_pod_problem(pod)
    waiting = find_waiting(build_job(), [pod], REFERENCES, after(1))
    assert diagnosis is not None
    assert waiting is not None
    assert told is not None
    assert diagnosis.problem is problem
    assert (waiting.reason, waiting.message) == (run, sentence)
    assert waiting.needs_correction == (run is not RunReason.UNSCHEDULABLE)
    assert told.reason is serving
    assert diagnosis.message in told.message


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing"])
def test_a_container_that_is_being_created_is_no_problem_yet(reason: str) -> None:
    pod = waiting_pod(reason)
    assert find_pod_problem(pod) is None
    late = after(NO_CONTAINER_DELAY.total_seconds())
    assert find_waiting(build_job(), [pod], REFERENCES, after(1)) is None
    waiting = find_waiting(build_job(), [pod], REFERENCES, late)
    assert waiting is not None
    assert (waiting.reason, waiting.needs_correction) == (RunReason.CONTAINER_NOT_STARTED, False)


def test_a_crash_loop_of_a_serving_pod_shows_its_last_end() -> None:
    pod = waiting_pod("CrashLoopBackOff", "back-off 40s")
    pod["status"]["containerStatuses"][0]["lastState"] = {
        "terminated": {"reason": "OOMKilled", "exitCode": 137}
    }
    problem = find_pod_problem(pod)
    assert problem is not None
    assert problem.reason is AdapterDeploymentReason.UNAVAILABLE
    assert problem.message == (
        "container trainer: CrashLoopBackOff: back-off 40s (ended with OOMKilled, exit code 137)"
    )


def test_a_crash_loop_of_a_serving_pod_shows_the_end_of_its_log() -> None:
    pod = waiting_pod("CrashLoopBackOff", "back-off 40s")
    ended = {"reason": "Error", "exitCode": 2, "message": "x" * 3000 + "\nWrongImage: engine.gpus is 1\n"}
    pod["status"]["containerStatuses"][0]["lastState"] = {"terminated": ended}
    problem = find_pod_problem(pod)
    assert problem is not None
    assert problem.message.endswith("WrongImage: engine.gpus is 1")
    assert len(problem.message) < 512


def test_a_missing_config_map_or_secret_of_a_volume_is_found_without_the_pod_s_status() -> None:
    pod = waiting_pod("ContainerCreating")
    pod["spec"]["volumes"] = [{"name": "hub", "secret": {"secretName": "hub"}}]
    config_map = References("team", {}, missing_config_maps=("rows",))
    waiting = find_waiting(build_job(), [pod], config_map, after(1))
    assert waiting is not None
    assert waiting.reason is RunReason.CONFIG_MAP_NOT_FOUND
    failures = ('MountVolume.SetUp failed: secret "other" not found', 'failed: secret "hub" not found')
    waiting = find_waiting(build_job(), [pod], References("team", {}, mount_failures=failures), after(1))
    assert waiting is not None
    assert (waiting.reason, '"hub"' in waiting.message) == (RunReason.SECRET_NOT_FOUND, True)
    assert (
        find_waiting(build_job(), [pod], References("team", {}, mount_failures=failures[:1]), after(1))
        is None
    )


@pytest.mark.parametrize(
    ("template", "field"),
    [
        (None, "the chart's value defaults.caBundle"),
        (
            PodTemplate.model_validate({"caBundle": {"configMapName": "trust"}}),
            "spec.compute.template.caBundle",
        ),
    ],
)
def test_a_missing_config_map_of_authorities_is_named_by_where_it_was_written(
    template: PodTemplate | None, field: str
) -> None:
    fields = authority_fields(template, Outbound(ca_bundle=CABundle("trust")))
    references = References.of("team", fields, {}, missing_config_maps=("trust",))
    waiting = find_waiting(build_job(), [waiting_pod("ContainerCreating")], references, after(1))
    assert waiting is not None
    assert waiting.message == (
        f'ConfigMap "trust" does not exist in namespace team: create it, or correct {field}.'
    )
    keyless = replace(references, missing_config_maps=("trust/ca.crt",))
    waiting = find_waiting(build_job(), [waiting_pod("ContainerCreating")], keyless, after(1))
    assert waiting is not None
    assert waiting.reason is RunReason.CONFIG_MAP_NOT_FOUND
    assert waiting.message == (
        f'ConfigMap "trust" in namespace team has no key "ca.crt": add it, or correct {field}.'
    )
    assert not authority_fields(template and PodTemplate(), Outbound())


@pytest.mark.parametrize(
    ("template", "field"),
    [
        (None, "the chart's value defaults.env[HTTPS_PROXY]"),
        (
            PodTemplate.model_validate({"proxy": {"secretRef": {"name": "proxy"}}}),
            "spec.compute.template.proxy.secretRef.name",
        ),
    ],
)
def test_a_missing_secret_of_a_proxy_is_named_by_where_it_was_written(
    template: PodTemplate | None, field: str
) -> None:
    secret = {"valueFrom": {"secretKeyRef": {"name": "proxy", "key": "url"}}}
    fields = proxy_secret_fields(template, Outbound({"HTTPS_PROXY": secret}))
    pod = waiting_pod("CreateContainerConfigError", 'secret "proxy" not found')
    waiting = find_waiting(build_job(), [pod], References.of("team", {}, fields), after(1))
    assert waiting is not None
    assert (
        waiting.message == f'Secret "proxy" does not exist in namespace team: create it, or correct {field}.'
    )


def test_a_running_pod_has_no_problem() -> None:
    assert diagnose_pod(build_pod()) is None
    assert find_waiting(build_job(), [build_pod()], REFERENCES, after(10_000)) is None
