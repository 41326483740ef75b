"""What nodes tell of volumes that they can't mount: in events, which are asked for once per pod."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from tunesmith.controller_runtime.client import Client
from tunesmith.decide.objects import condition_of, parse_time
from tunesmith.manifests.names import Metadata
from tunesmith.manifests.objects import Body

#: A container is made within seconds of its pod's scheduling; while an image is pulled its volumes are mounted already.
HUNG = timedelta(seconds=30)


class MountFailures:
    """Messages of nodes about Secrets that they can't mount.

    The API server answers a list of events by reading all those of the namespace: each pod is asked for once, and only
    after it has hung for a while.
    """

    def __init__(self) -> None:
        self._messages: dict[str, dict[str, tuple[str, ...]]] = {}

    async def observe(
        self, client: Client, owner: Metadata, pods: Iterable[Body], now: datetime
    ) -> tuple[str, ...]:
        """Messages about these pods, whose containers can't be created yet; those of other pods are forgotten.

        Raises:
            ApiError: the events can't be listed.
        """
        known = self._messages.get(owner.uid, {})
        messages: dict[str, tuple[str, ...]] = {}
        for pod in pods:
            uid = pod["metadata"]["uid"]
            if uid in known:
                messages[uid] = known[uid]
            elif _mounts_secret(pod) and _hangs(pod, now):
                messages[uid] = await _read_messages(client, pod)
        self._messages[owner.uid] = messages
        if not messages:
            self.forget(owner.uid)
        return tuple(message for of_pod in messages.values() for message in of_pod)

    def forget(self, owner_uid: str) -> None:
        """Drop the messages about a deleted resource's pods."""
        self._messages.pop(owner_uid, None)


def _mounts_secret(pod: Body) -> bool:
    return any("secret" in volume for volume in pod["spec"].get("volumes", ()))


def _hangs(pod: Body, now: datetime) -> bool:
    scheduled = condition_of(pod, "PodScheduled")
    since = parse_time(scheduled.get("lastTransitionTime")) if scheduled else None
    return since is not None and now >= since + HUNG


async def _read_messages(client: Client, pod: Body) -> tuple[str, ...]:
    metadata = pod["metadata"]
    selector = f"regarding.name={metadata['name']},reason=FailedMount"
    events = await client.list("events.k8s.io/v1", "Event", metadata["namespace"], field_selector=selector)
    return tuple(str(event.get("note", "")) for event in events)
