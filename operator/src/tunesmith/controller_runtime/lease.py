"""Leader election by a Lease, as client-go does it: one replica leads, and ends itself when it can't renew in time.

Only the replica's own clock counts: a lease has expired when it did not change for its duration, measured here. Writes
carry the resourceVersion that was read, so two replicas can't both win.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from tunesmith.manifests.objects import Body

from .client import Client
from .errors import ApiError, Conflict
from .kept import version_of

logger = logging.getLogger(__name__)

API_VERSION = "coordination.k8s.io/v1"
#: Time until the next try after a failed one, while the whole operator waits for it (``doubt``).
URGENT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """Seconds: validity of a lease, deadline of its leader to renew it, and time between tries."""

    duration: float = 15.0
    deadline: float = 10.0
    retry: float = 2.0


class LeaseLost(RuntimeError):
    """End of this replica's lead: the process must end before another one starts to act."""


class LeaderLease:
    """One replica's view of the lease.

    Args:
        identity: unique per process.
        clock: monotonic seconds, in any thread.

    Attributes:
        on_went_back: called when the lease that this replica holds is older than when it wrote it last, or is gone:
            the API server's etcd was restored from a backup. The versions of other objects tell that only until they
            have caught up.
        on_confirmed: called after each renewal, with the number of the last doubt before it began.
    """

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        identity: str,
        times: LeaseTimes = LeaseTimes(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._times = times
        self._clock = clock
        self._watched: tuple[str, float] | None = None
        self._known_holder: str | None = None
        self._renewed = float("-inf")
        self._written = 0
        self._doubt = 0
        self._confirmed = 0
        self._doubted = asyncio.Event()
        self.on_went_back: Callable[[], object] = lambda: None
        self.on_confirmed: Callable[[int], object] = lambda number: None
        #: Number of times that the lease had changed hands when this replica took it.
        self.term = 0

    async def acquire(self) -> None:
        """Wait until this replica leads; the log tells for whom it waits."""
        while True:
            if await self._try():
                logger.info("holding the lease %s as %s", self._name, self._identity)
                return
            await asyncio.sleep(self._times.retry)

    async def hold(self) -> None:
        """Renew without end.

        Raises:
            LeaseLost: another replica leads, or this one could not renew within the deadline.
        """
        renewed = True
        while True:
            await self._until_due(renewed)
            seconds_left = self._renewed + self._times.deadline - self._clock()
            try:
                # A request without an answer leaves time for another one, on another connection.
                async with asyncio.timeout(max(0.0, min(seconds_left, self._times.deadline / 2))):
                    renewed = await self._try()
            except TimeoutError:
                renewed = False
            if not renewed and self._clock() >= self._renewed + self._times.deadline:
                raise LeaseLost(f"the lease {self._name} could not be renewed in time")

    def doubt(self, number: int) -> None:
        """Renew now: the API server's data may have gone back."""
        self._doubt = number
        self._doubted.set()

    async def _until_due(self, renewed: bool) -> None:
        """Wait for the next try, which a doubt makes due at once, unless the last one has failed."""
        if not renewed and self._confirmed != self._doubt:
            await asyncio.sleep(min(URGENT_SECONDS, self._times.retry))
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._times.retry):
                await self._doubted.wait()

    async def release(self) -> None:
        """Let another replica lead at once."""
        lease = await self._client.get(API_VERSION, "Lease", self._namespace, self._name)
        if lease is not None and _spec(lease).get("holderIdentity") == self._identity:
            await self._client.replace({**lease, "spec": {**_spec(lease), "holderIdentity": ""}})

    async def _try(self) -> bool:
        """Take or renew the lease once; False when that failed, or another replica holds it."""
        started, doubt = self._clock(), self._doubt
        self._doubted.clear()
        try:
            leads = await self._take()
        except ApiError as error:
            logger.warning("lease %s not renewed: %s", self._name, error.message)
            return False
        if leads:
            self._renewed, self._confirmed = started, doubt
            self.on_confirmed(doubt)
        return leads

    async def _take(self) -> bool:
        lease = await self._client.get(API_VERSION, "Lease", self._namespace, self._name)
        self._compare(lease)
        if lease is None:
            first = self._build(None)
            created = await self._client.create(first)
            if created is None:
                return False
            self._written = version_of(created)
            self.term = first["spec"]["leaseTransitions"]
            return True
        if not self._is_free(lease):
            if self._renewed > float("-inf"):
                raise LeaseLost(f"{_spec(lease).get('holderIdentity')} leads now")
            return False
        taken = self._build(lease)
        try:
            self._written = version_of(await self._client.replace(taken))
        except Conflict:
            return False
        self.term = taken["spec"].get("leaseTransitions", 0)
        return True

    def _compare(self, lease: Body | None) -> None:
        version = version_of(lease) if lease else 0
        if version < self._written:
            logger.warning("the lease %s went back from version %d to %d", self._name, self._written, version)
            self._written = version
            self.on_went_back()

    def _is_free(self, lease: Body) -> bool:
        holder = _spec(lease).get("holderIdentity")
        if not holder or holder == self._identity:
            return True
        if holder != self._known_holder:
            self._known_holder = holder
            logger.info("the lease %s/%s is held by %s", self._namespace, self._name, holder)
        version = lease["metadata"]["resourceVersion"]
        if self._watched is None or self._watched[0] != version:
            self._watched = (version, self._clock())
        duration = _spec(lease).get("leaseDurationSeconds") or self._times.duration
        return self._clock() >= self._watched[1] + float(duration)

    def _build(self, before: Body | None) -> Body:
        """The lease, held by this replica."""
        spec = dict(_spec(before)) if before else {}
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if spec.get("holderIdentity") != self._identity:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = spec.get("leaseTransitions", -1) + 1
        spec |= {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._times.duration)),
            "renewTime": now,
        }
        metadata = before["metadata"] if before else {"namespace": self._namespace, "name": self._name}
        return {"apiVersion": API_VERSION, "kind": "Lease", "metadata": metadata, "spec": spec}


def _spec(lease: Body) -> Body:
    """The lease's spec; a person may have made the lease without one."""
    spec: Body = lease.get("spec") or {}
    return spec
