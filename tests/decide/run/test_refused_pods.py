"""Pods that a Job may not create: told in the API server's words, waited for or given up."""

import pytest
from simulation.run_objects import after, build_job, build_pod
from simulation.training_world import World, training, world

from tunesmith.api.reasons import RunReason
from tunesmith.decide.finetunejob.observed import RelatedObjects
from tunesmith.decide.plan import Patch
from tunesmith.decide.refusal import RefusalReason, plan_refusal
from tunesmith.decide.run.patience import CORRECTION_TIME
from tunesmith.decide.run.references import References
from tunesmith.decide.run.refused_pods import RETRY_PERIOD, explain_refusal
from tunesmith.decide.run.waiting import find_waiting

PREPARE = "expenses-0f3c9d-prepare-1"
CREATING = 'Error creating: pods "expenses-0f3c9d-prepare-1-0-{}" is forbidden: '
QUOTA = (
    CREATING
    + "exceeded quota: team, requested: requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu={}, {}"
)
LIMITED = "limited: requests.nvidia.com/gpu=8"


def refused(words: str) -> World:
    """A job whose first pod is refused with these words for a minute."""
    cluster = world()
    refuse(cluster, words)
    cluster.pass_time(60)
    cluster.reconcile()
    cluster.objects.pop(("Pod", PREPARE), None)
    return cluster


def refuse(cluster: World, words: str) -> None:
    cluster.objects.pop(("Pod", PREPARE), None)
    cluster.related = RelatedObjects(creation_failures={PREPARE: words})


LASTING = [
    (
        "failed quota: team: must specify limits.cpu for: trainer; limits.memory for: trainer",
        "must specify limits.cpu for: trainer; limits.memory for: trainer. The quota counts what the pods do not "
        "state: write requests and limits in compute.resources",
    ),
    (
        "maximum memory usage per Container is 2Gi, but limit is 16Gi",
        "write compute.resources within its bounds",
    ),
    (
        'violates PodSecurity "restricted:latest": runAsNonRoot != true',
        "pod-security.kubernetes.io/enforce",
    ),
    (
        "unable to validate against any security context constraint: [provider restricted-v2: "
        ".containers[0].runAsUser: Invalid value: 10001: must be in the ranges: [1000680000, 1000689999]]",
        "SecurityContextConstraints",
    ),
    ('error looking up service account team/robot: serviceaccount "robot" not found', "serviceAccountName"),
    ('pod rejected: RuntimeClass "nvidia" not found', "runtimeClassName"),
    ("no PriorityClass with name high was found", "priorityClassName"),
    (
        "ValidatingAdmissionPolicy 'images' with binding 'team' denied request: only ours",
        "An admission policy",
    ),
    ("something new", "Remove what forbids it"),
    (
        "exceeded quota: team, requested: requests.memory=16Gi, used: requests.memory=0, limited: requests.memory=8Gi",
        "The whole quota is less than what one pod asks for (requests.memory)",
    ),
]


@pytest.mark.parametrize(("words", "advice"), LASTING, ids=lambda text: text[:25])
def test_what_can_never_come_is_told_and_ends_in_time(words: str, advice: str) -> None:
    cluster = refused(CREATING.format("x7k2p") + words)
    ready = cluster.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("False", "PodNotCreated")
    assert words.split(", used")[0] in ready["message"]
    assert advice in ready["message"]
    refuse(cluster, CREATING.format("other") + words)
    cluster.pass_time(CORRECTION_TIME.total_seconds())
    cluster.reconcile()
    assert cluster.status["phase"] == "Failed"
    assert cluster.status["failure"]["category"] == "UserError"
    assert cluster.status["failure"]["message"] == ready["message"]
    assert not cluster.live_jobs()


PASSING = [
    QUOTA.format("x7k2p", 8, LIMITED),
    'Error creating: Internal error occurred: failed calling webhook "x.example": context deadline exceeded',
    "Error creating: etcdserver: request timed out",
]


@pytest.mark.parametrize("words", PASSING)
def test_what_time_may_free_is_waited_for(words: str) -> None:
    cluster = refused(words)
    for _ in range(5):
        refuse(cluster, words)
        cluster.pass_time(10**5)
        cluster.reconcile()
    assert cluster.status["phase"] == "Preparing"
    assert cluster.condition("Ready")["reason"] == "PodNotCreated"


def test_numbers_that_change_from_try_to_try_write_nothing() -> None:
    cluster = refused(QUOTA.format("x7k2p", 8, LIMITED))
    message, status = cluster.condition("Ready")["message"], cluster.status
    assert message == (
        f'The pods of Job "{PREPARE}" are refused: the pod is forbidden: exceeded quota: team, '
        "requested: requests.nvidia.com/gpu=1, limited: requests.nvidia.com/gpu=8. "
        "It starts when others free their part of the quota, or when the quota is raised."
    )
    refuse(cluster, QUOTA.format("q9d4s", 7, LIMITED))
    cluster.pass_time(1)
    plan = cluster.reconcile()
    assert (plan.status, plan.events) == (status, ())


def test_the_job_controller_is_made_to_try_again_within_half_a_minute() -> None:
    cluster = refused(QUOTA.format("x7k2p", 8, LIMITED))
    tries, seconds = 0, 0.0
    while seconds < 300:
        refuse(cluster, QUOTA.format("x7k2p", 8, LIMITED))
        plan = cluster.reconcile()
        tries += sum(isinstance(action, Patch) for action in plan.actions)
        assert plan.requeue_after is not None
        assert plan.requeue_after <= RETRY_PERIOD.total_seconds() < 30
        cluster.pass_time(plan.requeue_after)
        seconds += plan.requeue_after
    assert 10 <= tries <= 13


def test_a_gang_of_which_some_pods_are_refused_says_so() -> None:
    job, pods = build_job(spec={"parallelism": 2}), [build_pod(index=0)]
    references = References("team", {}, creation_failures={"job-1": QUOTA.format("x", 8, LIMITED)})
    waiting = find_waiting(job, pods, references, after(60))
    assert waiting is not None
    assert (waiting.reason, waiting.needs_correction) == (RunReason.POD_NOT_CREATED, False)
    assert find_waiting(job, [*pods, build_pod(index=1)], references, after(60)) is None


def test_a_job_that_got_its_pods_goes_on() -> None:
    cluster = refused(QUOTA.format("x7k2p", 8, LIMITED))
    cluster.run_job_controller()
    cluster.reconcile()
    assert cluster.condition("Ready")["reason"] == "Preparing"


def test_a_pod_of_the_gpu_stage_is_told_alike() -> None:
    cluster = training()
    job = cluster.job()["metadata"]["name"]
    del cluster.objects[("Pod", job)]
    cluster.related = RelatedObjects(creation_failures={job: QUOTA.format("x7k2p", 8, LIMITED)})
    cluster.pass_time(60)
    cluster.reconcile()
    assert "exceeded quota: team" in cluster.condition("Ready")["message"]


def test_quantities_are_compared_whatever_their_unit() -> None:
    for requested, limited, never in [("500m", "1", False), ("1500m", "1", True), ("1Gi", "1000Mi", True)]:
        words = f"exceeded quota: team, requested: cpu={requested}, used: cpu=0, limited: cpu={limited}"
        assert (explain_refusal("job", words).category is not None) is never


def test_a_refused_object_is_told_without_numbers_that_change() -> None:
    body = {"metadata": {"generation": 1}}
    words = 'jobs.batch "a" is forbidden: exceeded quota: team, requested: count/jobs.batch=1, used: {}, limited: x=5'
    plans = [
        plan_refusal(body, RefusalReason.REFUSED, words.format(f"count/jobs.batch={used}"), after(0))
        for used in (5, 6)
    ]
    assert plans[0] == plans[1]
    assert "exceeded quota: team, requested: count/jobs.batch=1, limited: x=5" in plans[0].events[0].message
