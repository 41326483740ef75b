"""Problems of serving pods, in the words of a status."""

from typing import Any

import pytest

from tunesmith.decide.serving.pods.pod_problem import find_pod_problem, find_refusal

WAITING = {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}
OUT_OF_MEMORY = {"reason": "OOMKilled", "exitCode": 137, "message": "x" * 500 + " no memory is left\n"}


def pod(waiting: dict[str, Any] | None = None, ended: dict[str, Any] | None = None, **status: Any) -> Any:
    state = {"waiting": waiting} if waiting else {"running": {}}
    engine = {"name": "engine", "state": state, "lastState": {"terminated": ended} if ended else {}}
    return {"status": {"containerStatuses": [engine], **status}}


def unscheduled(**condition: str) -> Any:
    return pod(conditions=[{"type": "PodScheduled", "status": "False", **condition}])


@pytest.mark.parametrize("healthy", [pod(), pod({"reason": "ContainerCreating"}), {"status": {}}])
def test_a_pod_that_only_needs_time_has_no_problem(healthy: Any) -> None:
    assert find_pod_problem(healthy) is None


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (unscheduled(message="0/3 nodes are available"), "0/3 nodes are available"),
        (unscheduled(), "no node takes the pod"),
        (pod({"reason": "ErrImagePull"}), "container engine: ErrImagePull:"),
        (pod(WAITING), "container engine: CrashLoopBackOff: back-off 40s restarting failed container"),
        (
            pod(WAITING, {"exitCode": 1}),
            "container engine: CrashLoopBackOff: back-off 40s restarting failed container "
            "(ended with Error, exit code 1)",
        ),
    ],
)
def test_the_message_says_where_it_stands(found: Any, message: str) -> None:
    problem = find_pod_problem(found)
    assert problem is not None
    assert problem.message == message


def test_the_end_of_the_last_words_is_told() -> None:
    problem = find_pod_problem(pod(WAITING, OUT_OF_MEMORY))
    assert problem is not None
    assert "(ended with OOMKilled, exit code 137): xxx" in problem.message
    assert problem.message.endswith("no memory is left")
    assert problem.message.count("x") < 400


def test_refused_pods_are_told_without_numbers_that_change() -> None:
    words = 'pods "chat-0" is forbidden: exceeded quota: team, requested: cpu=4, used: cpu={}, limited: cpu=8'

    def refused(used: int) -> Any:
        condition = {"type": "ReplicaFailure", "status": "True", "message": words.format(used)}
        return {"status": {"conditions": [condition]}}

    told = "the pod is forbidden: exceeded quota: team, requested: cpu=4, limited: cpu=8"
    assert {find_refusal(refused(used)) for used in (5, 6)} == {told}
    assert find_refusal({"status": {}}) is None
