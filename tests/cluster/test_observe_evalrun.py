"""Which EvalRuns a FineTuneJob wakes."""

from typing import Any

import pytest

from tunesmith.cluster.observe_evalrun import waiting_runs


def job(phase: str, name: str = "expenses", namespace: str = "team") -> dict[str, Any]:
    """A FineTuneJob in a phase."""
    metadata = {"name": name, "namespace": namespace}
    return {"kind": "FineTuneJob", "metadata": metadata, "status": {"phase": phase}}


RUN = {
    "kind": "EvalRun",
    "metadata": {"name": "exam", "namespace": "team"},
    "spec": {"candidate": {"fineTuneJobRef": {"name": "expenses"}}},
}
BY_DIGEST = {**RUN, "spec": {"candidate": {"uri": "pvc://artifacts/x", "digest": "sha256:0"}}}


@pytest.mark.parametrize(
    ("changed", "woken"),
    [
        (job("Succeeded"), [RUN]),
        (job("Failed"), [RUN]),
        (job("Training"), []),
        (job("Succeeded", name="another"), []),
        (job("Succeeded", namespace="elsewhere"), []),
        ({**job("Succeeded"), "kind": "EvalRun"}, []),
    ],
)
def test_an_ended_job_wakes_the_runs_that_wait_for_it(changed: dict[str, Any], woken: list[Any]) -> None:
    assert list(waiting_runs(changed, [RUN, BY_DIGEST])) == woken
