"""Status texts of a FineTuneJob, EvalRun and AdapterDeployment, and a check for stalled ones."""

from collections.abc import Mapping
from typing import Any

Resource = Mapping[str, Any]


class DemoFailed(Exception):
    """Failure of the demo; the message names the resource that explains it."""


def describe_job(job: Resource) -> str:
    """Phase, share done, loss and time left of a FineTuneJob."""
    status = job.get("status", {})
    progress = status.get("progress", {})
    parts = [status.get("phase", "Pending")]
    if "percent" in progress:
        # The number of steps is known before the first one has ended.
        is_counted = {"step", "totalSteps"} <= progress.keys()
        steps = f" (step {progress['step']} of {progress['totalSteps']})" if is_counted else ""
        parts.append(f"{progress['percent']}{steps}")
    if "loss" in progress:
        parts.append(f"loss {float(progress['loss']):.3f}")
    if "remaining" in progress:
        parts.append(f"{progress['remaining']} left")
    return ", ".join(parts)


def describe_run(run: Resource) -> str:
    """Phase and verdict of an EvalRun."""
    status = run.get("status", {})
    return ", ".join(filter(None, (status.get("phase", "Pending"), status.get("verdict"))))


def describe_deployment(deployment: Resource) -> str:
    """Phase of each alias of an AdapterDeployment, and why it waits."""
    adapters = deployment.get("status", {}).get("adapters", ())
    words = [f"{adapter['name']} {adapter['phase']}" for adapter in adapters]
    reasons = [adapter["message"] for adapter in adapters if adapter.get("message")]
    return "; ".join(words + reasons) or "Pending"


def require_success(resource: Resource) -> None:
    """Check that a resource is not stalled.

    Raises:
        DemoFailed: it is; the message is that of its condition.
    """
    for condition in resource.get("status", {}).get("conditions", ()):
        if condition["type"] == "Stalled" and condition["status"] == "True":
            name = f"{resource['kind']}/{resource['metadata']['name']}"
            raise DemoFailed(f"{name}: {condition['reason']}: {condition['message']}")
