"""Whom the end of a FineTuneJob wakes."""

from typing import Any

import pytest
from simulated_cluster import fine_tune_job

from tunesmith.cluster.observe_finetunejob import waiting_jobs


def job(name: str, phase: str | None = None, **spec: Any) -> dict[str, Any]:
    body = fine_tune_job(**spec)
    body["metadata"]["name"] = name
    return body | ({"status": {"phase": phase}} if phase else {})


ON_BASE = {"baseModel": {"fineTuneJobRef": {"name": "earlier"}}}
ON_REWARD = {
    "method": {"rloo": {"rewards": [{"name": "r", "model": {"fineTuneJobRef": {"name": "earlier"}}}]}}
}
KNOWN = [
    job("new", **ON_BASE),
    job("waits", "Pending", **ON_REWARD),
    job("trains", "Training", **ON_BASE),
    job("other", "Pending"),
]


@pytest.mark.parametrize(
    ("changed", "woken"),
    [
        (job("earlier", "Succeeded"), ["new", "waits"]),
        (job("earlier", "Failed"), ["new", "waits"]),
        (job("earlier", "Training"), []),
        (job("stranger", "Succeeded"), []),
    ],
)
def test_the_end_of_an_earlier_job_wakes_those_that_wait_for_it(
    changed: dict[str, Any], woken: list[str]
) -> None:
    assert [body["metadata"]["name"] for body in waiting_jobs(changed, KNOWN)] == woken
