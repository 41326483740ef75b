"""From changes to reconciles: one level-based, idempotent pass per resource, never two at once."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from tunesmith.controller_runtime.bodies import Bodies, Key, key_of, version_of
from tunesmith.controller_runtime.client import Client
from tunesmith.controller_runtime.errors import ApiError, Conflict, Refused, Retryable
from tunesmith.controller_runtime.events import EventRecorder
from tunesmith.controller_runtime.metrics import Metrics
from tunesmith.controller_runtime.queue import WorkQueue
from tunesmith.decide.plan import Apply, Create, Plan
from tunesmith.decide.refusal import RefusalReason, plan_invalid, plan_refusal, without_invalid
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.names import API_VERSION

from .execute import execute
from .live import AgentHub, Live, ProgressBoard
from .reconciler import Reconciler

logger = logging.getLogger(__name__)

#: A written status is looked at once more: a plan may go on from it.
SETTLE_SECONDS = 0.5
REFUSED_SECONDS = 5.0
#: After so many failures in a row people are told.
PATIENCE = 4
RESYNC_SECONDS = 600.0

AnyReconciler = Reconciler[Any, Any]
Now = Callable[[], datetime]


def utc_now() -> datetime:
    """The time that plans are given."""
    return datetime.now(UTC)


class Controller:
    """Owns the work queue, the latest bodies, and what pods told; reconciles with the kinds' functions.

    Args:
        environment: replaced when the installation's settings change.
    """

    def __init__(
        self,
        client: Client,
        reconcilers: Iterable[AnyReconciler],
        recorder: EventRecorder,
        metrics: Metrics,
        environment: Environment,
        now: Now = utc_now,
    ) -> None:
        self.environment = environment
        self.reconcilers = {reconciler.kind: reconciler for reconciler in reconcilers}
        self.bodies = Bodies()
        self.queue: WorkQueue[Key] = WorkQueue(asyncio.get_running_loop())
        self.live = Live(ProgressBoard(self.wake), AgentHub(self.wake))
        self._client = client
        self._recorder = recorder
        self._metrics = metrics
        self._now = now
        self._reconciled: dict[str, float] = {}
        self._first_seen: dict[str, float] = {}
        metrics.queue_depth.set_function(lambda: len(self.queue))

    def seen(self, event_type: str | None, body: dict[str, Any]) -> None:
        """Take over an event of a resource's watch; None for those of the first list."""
        if event_type == "DELETED":
            self._forget(body)
        elif self.bodies.put(body):
            new = _is_new(body)
            if new:
                self._first_seen[body["metadata"]["uid"]] = time.monotonic()
            self.queue.add(key_of(body), urgent=new)
            if event_type is not None:
                # Of the first list all are looked at anyway: going through all for each would take its square.
                self._wake_dependents(body)

    def child_changed(self, owner_uid: str) -> None:
        """A child of the resource with this UID was added, changed or removed."""
        key = self.bodies.key(owner_uid)
        if key is not None:
            self.queue.add(key)

    def wake(self, owner_uid: str, seconds: float) -> None:
        """Reconcile the resource with this UID, at most once per so many seconds."""
        key = self.bodies.key(owner_uid)
        if key is not None:
            last = self._reconciled.get(owner_uid, float("-inf"))
            self.queue.add_after(key, last + seconds - time.monotonic())

    def _wake_dependents(self, body: dict[str, Any]) -> None:
        """Reconcile the other resources that this one concerns."""
        for reconciler in self.reconcilers.values():
            if reconciler.dependents is None:
                continue
            for dependent in reconciler.dependents(body, self.bodies.of_kind(reconciler.kind)):
                self.queue.add(key_of(dict(dependent)))

    async def work(self) -> None:
        """Reconcile one resource after the other, for ever."""
        while True:
            key = await self.queue.get()
            try:
                await self._reconcile_counted(key)
            finally:
                self.queue.done(key)

    async def resync(self, seconds: float = RESYNC_SECONDS) -> None:
        """Now and then look at everything, whatever the watches missed."""
        while True:
            await asyncio.sleep(seconds)
            for kind in self.reconcilers:
                try:
                    await self.resync_kind(kind)
                except ApiError as error:
                    logger.warning("resync of %s put off: %s", kind, error.message)

    async def resync_kind(self, kind: str) -> None:
        """List one kind: reconcile what there is, forget what is gone."""
        bodies = await self._client.list(API_VERSION, kind, None)
        present = {body["metadata"]["uid"] for body in bodies}
        for known in self.bodies.of_kind(kind):
            if known["metadata"]["uid"] not in present:
                await self._confirm(key_of(known), known)
        for body in bodies:
            self.bodies.put(body)
            self.queue.add(key_of(body))

    async def _confirm(self, key: Key, known: dict[str, Any]) -> None:
        """Forget what a read confirms to be gone: it may be younger than the list."""
        body = await self._client.get(API_VERSION, key.kind, key.namespace, key.name)
        if body is None:
            self._forget(known)

    def _forget(self, body: dict[str, Any]) -> None:
        """The resource is gone; its children follow by their owner references."""
        uid = body["metadata"]["uid"]
        if self.bodies.drop(body):
            self.queue.forget(key_of(body))
        self._client.index.forget_departed(uid)
        self.live.progress.forget(uid)
        self.live.agents.forget(uid)
        self._reconciled.pop(uid, None)
        self._first_seen.pop(uid, None)

    async def _reconcile_counted(self, key: Key) -> None:
        body = self.bodies.get(key)
        if body is None or "deletionTimestamp" in body["metadata"]:
            return
        started = self._reconciled[body["metadata"]["uid"]] = time.monotonic()
        outcome = await self._reconcile_guarded(key, body)
        self._metrics.reconciles.labels(key.kind, outcome).inc()
        self._metrics.reconcile_seconds.labels(key.kind).observe(time.monotonic() - started)

    async def _reconcile_guarded(self, key: Key, body: dict[str, Any]) -> str:
        """One pass, whose every failure leads to another one; returns its outcome."""
        try:
            outcome = await self._reconcile(key, body)
        except Conflict:
            await self._reread(key)
            return "retried"
        except Refused as error:
            self.queue.back_off(key, REFUSED_SECONDS)
            await self._tell(body, RefusalReason.REFUSED, error.message)
            return "refused"
        except ApiError as error:
            wish = error.retry_after if isinstance(error, Retryable) else None
            self.queue.back_off(key, wish or 0.0)
            if self.queue.failures(key) >= PATIENCE:
                await self._tell(body, RefusalReason.UNAVAILABLE, error.message)
            return "retried"
        except Exception as error:
            logger.exception("reconcile failed", extra={"resource": _reference(body)})
            self.queue.back_off(key, 1.0)
            # The exception's text may hold what people may not see.
            await self._tell(
                body, RefusalReason.INTERNAL, f"{type(error).__name__} in the operator; see its log"
            )
            return "failed"
        self.queue.succeeded(key)
        return outcome

    async def _reconcile(self, key: Key, body: dict[str, Any]) -> str:
        """Parse, observe, plan, execute."""
        reconciler = self.reconcilers[key.kind]
        try:
            resource = reconciler.parse(without_invalid(body))
        except ValueError as error:
            await self._carry_out(key, body, plan_invalid(body, error, self._now()))
            return "invalid"
        observed = await reconciler.observe(self._client, resource, self.live, self.environment)
        plan = reconciler.plan(resource, observed, self._now(), self.environment)
        await self._carry_out(key, body, plan)
        return "done"

    async def _carry_out(self, key: Key, body: dict[str, Any], plan: Plan) -> None:
        after = await execute(self._client, self.live.agents, self._recorder, body, plan)
        self._note_first_child(body, plan)
        if version_of(after) != version_of(body):
            self.bodies.put(after)
            self._wake_dependents(after)
            self.queue.add_after(key, SETTLE_SECONDS)
        if plan.requeue_after is not None:
            self.queue.add_after(key, plan.requeue_after)

    async def _tell(self, body: dict[str, Any], reason: RefusalReason, message: str) -> None:
        """Say in the status what stands in the way; when even that fails, the log has it."""
        logger.warning("%s: %s", reason, message, extra={"resource": _reference(body)})
        plan = plan_refusal(body, reason, message, self._now())
        try:
            after = await execute(self._client, self.live.agents, self._recorder, body, plan)
        except Conflict:
            await self._reread(key_of(body))
        except ApiError as error:
            logger.warning("status not written: %s", error.message, extra={"resource": _reference(body)})
        else:
            self.bodies.put(after)

    async def _reread(self, key: Key) -> None:
        """What was known is not the latest: read it, and look again."""
        try:
            body = await self._client.get(API_VERSION, key.kind, key.namespace, key.name)
        except ApiError:
            self.queue.back_off(key)
            return
        known = self.bodies.get(key)
        if body is not None:
            self.bodies.put(body)
            self.queue.back_off(key)
        elif known is not None:
            self._forget(known)

    def _note_first_child(self, body: dict[str, Any], plan: Plan) -> None:
        seen = self._first_seen.pop(body["metadata"]["uid"], None)
        if seen is not None and any(isinstance(action, Create | Apply) for action in plan.actions):
            self._metrics.first_child_seconds.labels(body["kind"]).observe(time.monotonic() - seen)


def _is_new(body: dict[str, Any]) -> bool:
    return "observedGeneration" not in (body.get("status") or {})


def _reference(body: dict[str, Any]) -> dict[str, str]:
    metadata = body["metadata"]
    return {
        "kind": body["kind"],
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
