"""Lines that the demo prints while a job runs."""

from typing import Any

import pytest

from tunesmith_demo.progress import describe_job


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        ({}, "Training"),
        ({"percent": "4%"}, "Training, 4%"),
        # Before the first step has ended.
        ({"percent": "0%", "totalSteps": 20}, "Training, 0%"),
        (
            {"percent": "10%", "step": 2, "totalSteps": 20, "loss": "1.23456", "remaining": "2m"},
            "Training, 10% (step 2 of 20), loss 1.235, 2m left",
        ),
    ],
)
def test_a_job_is_described_by_what_is_known(progress: dict[str, Any], line: str) -> None:
    assert describe_job({"status": {"phase": "Training", "progress": progress}}) == line
