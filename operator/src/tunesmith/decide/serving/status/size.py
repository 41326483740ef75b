"""Bound of the size of a status: what people miss least is left out first."""

import json
from collections.abc import Callable

from tunesmith.api.adapterdeployment import AdapterDeploymentStatus, AdapterStatus

#: Most bytes of a status. The object also holds the spec, and who owns each of its fields, and has 1.5 MiB in all.
MAX_STATUS_BYTES = 400_000


def bounded(status: AdapterDeploymentStatus) -> AdapterDeploymentStatus:
    """The status, shortened step by step until it is not too large."""
    for shorten in (_without_loaded, _with_latest_action, _with_latest_versions):
        if len(json.dumps(status.to_dict())) <= MAX_STATUS_BYTES:
            return status
        status = shorten(status)
    return status


def _without_loaded(status: AdapterDeploymentStatus) -> AdapterDeploymentStatus:
    pods = tuple(pod.model_copy(update={"loaded": ()}) for pod in status.pods)
    return status.model_copy(update={"pods": pods})


def _with_latest_action(status: AdapterDeploymentStatus) -> AdapterDeploymentStatus:
    return _of_each(status, lambda adapter: adapter.model_copy(update={"actions": adapter.actions[:1]}))


def _with_latest_versions(status: AdapterDeploymentStatus) -> AdapterDeploymentStatus:
    return _of_each(
        status,
        lambda adapter: adapter.model_copy(
            update={"history": adapter.history[:1], "rejected": adapter.rejected[:1]}
        ),
    )


def _of_each(
    status: AdapterDeploymentStatus, shorten: Callable[[AdapterStatus], AdapterStatus]
) -> AdapterDeploymentStatus:
    return status.model_copy(update={"adapters": tuple(map(shorten, status.adapters))})
