"""How long an attempt waits for what its pods miss: from when the cause was first seen, by the operator's own clock."""

from typing import Any

import pytest
from simulation.training_world import World, world

from tunesmith.decide.conditions import timestamp
from tunesmith.decide.run.patience import CORRECTION_TIME, RECOVERY_TIME

MISSING_SECRET = ("CreateContainerConfigError", 'secret "hub" not found')
OTHER_SECRET = ("CreateContainerConfigError", 'secret "key" not found')
NOT_FOUND = ("ErrImagePull", "failed to resolve reference registry.example/trainer:1: not found")
BACK_OFF = ("ImagePullBackOff", 'Back-off pulling image "trainer:1"')
RATE_LIMIT = (
    "ErrImagePull",
    "unexpected status from GET request to https://registry.example/v2/: 429 Too Many Requests: toomanyrequests: "
    "You have reached your pull rate limit",
)
CORRECTION, RECOVERY = CORRECTION_TIME.total_seconds(), RECOVERY_TIME.total_seconds()


def hold(cluster: World, cause: tuple[str, str] | None, since: str | None = None) -> None:
    """Let the pod wait for a cause; None lets it create its container."""
    reason, message = cause or ("ContainerCreating", "")
    waiting = {"reason": reason, "message": message}
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": since}
    cluster.pod_of(cluster.job())["status"] = {
        "phase": "Pending",
        "conditions": [scheduled | ({} if since else {"lastTransitionTime": timestamp(cluster.now)})],
        "containerStatuses": [{"name": "trainer", "state": {"waiting": waiting}}],
    }


@pytest.fixture
def cluster() -> World:
    """A job whose prepare pod was made an hour ago."""
    cluster = world()
    cluster.pass_time(3600)
    return cluster


CAUSES = [MISSING_SECRET, NOT_FOUND, ("CreateContainerConfigError", 'configmap "rows" not found')]


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause[1][:20])
def test_patience_begins_when_the_cause_is_first_seen(cluster: World, cause: tuple[str, str]) -> None:
    hold(cluster, cause, since="2030-01-01T00:00:00Z")
    plan = cluster.reconcile()
    assert cluster.status["phase"] == "Preparing"
    assert plan.requeue_after is not None
    cluster.pass_time(CORRECTION - 1)
    assert (cluster.reconcile().requeue_after or 0) <= 1
    assert cluster.status["phase"] == "Preparing"
    cluster.pass_time(1)
    cluster.reconcile()
    assert cluster.status["phase"] == "Failed"
    assert cluster.status["failure"]["category"] == "UserError"


def test_patience_begins_anew_with_another_cause(cluster: World) -> None:
    hold(cluster, MISSING_SECRET)
    cluster.reconcile()
    for cause in (OTHER_SECRET, NOT_FOUND):
        cluster.pass_time(CORRECTION - 1)
        hold(cluster, cause)
        cluster.reconcile()
        assert cluster.status["phase"] == "Preparing"


def test_patience_begins_anew_after_the_cause_was_gone(cluster: World) -> None:
    hold(cluster, MISSING_SECRET)
    cluster.reconcile()
    cluster.pass_time(CORRECTION - 1)
    hold(cluster, None)
    cluster.reconcile()
    hold(cluster, MISSING_SECRET)
    cluster.pass_time(2)
    cluster.reconcile()
    assert cluster.status["phase"] == "Preparing"


def test_the_operator_may_be_restarted_and_its_status_wiped_while_it_waits(cluster: World) -> None:
    hold(cluster, MISSING_SECRET)
    cluster.reconcile()
    cluster.forget_status()
    cluster.pass_time(CORRECTION)
    cluster.reconcile()
    assert cluster.status["phase"] == "Failed"


def test_what_waits_is_written_once(cluster: World) -> None:
    hold(cluster, MISSING_SECRET)
    assert len(cluster.reconcile().actions) == 1
    cluster.pass_time(60)
    assert not cluster.reconcile().actions


@pytest.mark.parametrize("skew", [-3600, 3600])
def test_the_clock_of_the_api_server_does_not_matter(skew: float) -> None:
    cluster = world()
    cluster.pass_time(skew)
    hold(cluster, MISSING_SECRET, since="2030-01-01T00:00:00Z")
    cluster.reconcile()
    cluster.pass_time(CORRECTION - 1)
    cluster.reconcile()
    assert cluster.status["phase"] == "Preparing"
    cluster.pass_time(1)
    cluster.reconcile()
    assert cluster.status["phase"] == "Failed"


PASSING = [
    RATE_LIMIT,
    ("ErrImagePull", "failed to do request: Head https://registry.example/v2/trainer: dial tcp: i/o timeout"),
    (
        "ErrImagePull",
        "unexpected status from HEAD request to https://registry.example/v2/: 503 Service Unavailable",
    ),
    ("ErrImagePull", "failed to fetch anonymous token: unexpected status: 502 Bad Gateway"),
    ("ErrImagePull", "rpc error: code = DeadlineExceeded desc = context deadline exceeded"),
    ("ErrImagePull", "dial tcp 10.0.0.1:443: connect: connection refused"),
    ("ErrImagePull", "dial tcp: lookup registry.example on 10.96.0.10:53: no such host"),
    ("ErrImagePull", "failed to copy: httpReadSeeker: unexpected EOF"),
    ("RegistryUnavailable", "registry is not available"),
    BACK_OFF,
    ("CreateContainerError", "rpc error: code = DeadlineExceeded desc = context deadline exceeded"),
]


@pytest.mark.parametrize("cause", PASSING, ids=lambda cause: cause[1][-30:])
def test_what_may_pass_is_infrastructure_and_tried_again(cluster: World, cause: tuple[str, str]) -> None:
    hold(cluster, cause)
    cluster.reconcile()
    cluster.pass_time(RECOVERY - 1)
    cluster.reconcile()
    assert cluster.status["phase"] == "Preparing"
    assert not any("result" in name for _, name in cluster.objects)
    cluster.pass_time(1)
    cluster.reconcile()
    assert cluster.status["phase"] == "Preparing"
    assert cluster.condition("Ready")["reason"] == "Retrying"
    cluster.pass_time(60)
    cluster.reconcile()
    assert cluster.job()["metadata"]["name"].endswith("prepare-2")


def test_a_registry_that_stays_away_ends_the_job_as_infrastructure(cluster: World) -> None:
    for _ in range(4):
        hold(cluster, RATE_LIMIT)
        cluster.reconcile()
        cluster.pass_time(RECOVERY)
        cluster.reconcile()
        cluster.pass_time(600)
        cluster.reconcile()
    assert cluster.status["phase"] == "Failed"
    assert cluster.condition("Stalled")["reason"] == "BackoffLimitExceeded"
    assert cluster.status["failure"]["category"] == "Infrastructure"
    assert "429 Too Many Requests" in cluster.status["failure"]["message"]


LASTING = [
    NOT_FOUND,
    ("InvalidImageName", "couldn't parse image reference: invalid reference format"),
    ("ErrImagePull", "pull access denied, repository does not exist or may require authorization"),
    ("ErrImagePull", "failed to authorize: unexpected status: 401 Unauthorized"),
    ("ErrImagePull", "unexpected status from HEAD request to https://registry.example/v2/: 403 Forbidden"),
    ("ErrImagePull", "manifest unknown: manifest tagged by 1 is not found"),
    ("ErrImagePull", "rpc error: code = NotFound desc = no match for platform in manifest"),
    ("ErrImageNeverPull", "image is not present with pull policy of Never"),
    ("ImagePullBackOff", 'Back-off pulling image "trainer:1": ErrImagePull: trainer:1: not found'),
]


@pytest.mark.parametrize("cause", LASTING, ids=lambda cause: cause[1][-30:])
def test_what_a_person_must_correct_is_a_user_error(cluster: World, cause: tuple[str, str]) -> None:
    hold(cluster, cause)
    cluster.reconcile()
    cluster.pass_time(CORRECTION)
    cluster.reconcile()
    assert cluster.status["phase"] == "Failed"
    assert cluster.status["failure"]["category"] == "UserError"
    assert "correct its name, or add imagePullSecrets" in cluster.status["failure"]["message"]


def test_the_kubelet_s_back_off_without_a_cause_is_that_of_the_last_pull(cluster: World) -> None:
    for seconds in (0, 300, CORRECTION - 300):
        cluster.pass_time(seconds)
        hold(cluster, NOT_FOUND if seconds == 0 else BACK_OFF)
        cluster.reconcile()
    assert cluster.status["phase"] == "Failed"
    assert cluster.status["failure"]["category"] == "UserError"


def test_an_image_that_pulls_for_long_before_its_first_error_is_waited_for(cluster: World) -> None:
    hold(cluster, None, since=timestamp(cluster.now))
    cluster.reconcile()
    cluster.pass_time(3600)
    hold(cluster, RATE_LIMIT, since="2030-01-01T00:00:00Z")
    cluster.reconcile()
    assert cluster.status["phase"] == "Preparing"
    assert not any("result" in name for _, name in cluster.objects)


def test_annotations_that_people_changed_count_as_none(cluster: World) -> None:
    texts: list[Any] = [
        "",
        "[]",
        "{}",
        '{"cause": 1, "since": "now"}',
        '{"cause": "x", "since": "2030-01-01T00:00:00"}',
    ]
    for text in texts:
        cluster.job()["metadata"]["annotations"] = {"tunesmith.dev/waiting": text}
        hold(cluster, MISSING_SECRET)
        cluster.reconcile()
        assert cluster.status["phase"] == "Preparing"
