"""Types of Kubernetes objects as plain data: as read from the API server, and as sent to it."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

#: An object as the API server returned it; never changed.
Body = Mapping[str, Any]

#: An object, or a patch of one, built to be sent to the API server.
KubernetesObject = dict[str, Any]


def deletion_requested_at(body: Body) -> datetime | None:
    """Time of the request to delete the object; None if there was none.

    ``deletionTimestamp`` is the end of the grace period.
    """
    end = body["metadata"].get("deletionTimestamp")
    grace = body["metadata"].get("deletionGracePeriodSeconds") or 0
    return datetime.fromisoformat(end) - timedelta(seconds=grace) if end else None


def with_first_deletion_request(body: Body, earlier: Body | None) -> Body:
    """The object with a grace period that counts from the first request to delete it.

    When kubelet removes a pod that has ended, the API server sets ``deletionTimestamp`` to the present and the grace
    period to 0 (``BeforeDelete`` in k8s.io/apiserver): the time of the request would be lost.

    Args:
        earlier: an earlier state of the object; None if there is none.
    """
    first = deletion_requested_at(earlier) if earlier is not None else None
    requested = deletion_requested_at(body)
    if first is None or requested is None or first >= requested:
        return body
    end = datetime.fromisoformat(body["metadata"]["deletionTimestamp"])
    grace = round((end - first).total_seconds())
    return {**body, "metadata": {**body["metadata"], "deletionGracePeriodSeconds": grace}}
