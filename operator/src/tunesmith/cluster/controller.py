"""Controller of all kinds: one level-based, idempotent pass per resource and change, never two at once."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from tunesmith.controller_runtime.backoff import Backoff
from tunesmith.controller_runtime.bodies import Bodies, Key, key_of
from tunesmith.controller_runtime.client import Client
from tunesmith.controller_runtime.errors import ApiError, Conflict, Gone, NameTaken, Refused, Retryable
from tunesmith.controller_runtime.events import EventRecorder
from tunesmith.controller_runtime.fence import Fence
from tunesmith.controller_runtime.kept import version_of
from tunesmith.controller_runtime.mentions import mentioned_in
from tunesmith.controller_runtime.metrics import Metrics
from tunesmith.controller_runtime.queue import WorkQueue
from tunesmith.decide.plan import Apply, Create, Event, Plan
from tunesmith.decide.refusal import RefusalReason, plan_invalid, plan_refusal, without_invalid
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.names import API_VERSION, children_selector, controller_of
from tunesmith.manifests.objects import Body

from .execute import Proceed, execute
from .live import AgentHub, Live, ProgressBoard
from .reconciler import Now, Reader, Reconciler, utc_now

logger = logging.getLogger(__name__)

#: After actions, and after a status that others read, the resource is reconciled once more: a plan may continue.
SETTLE_SECONDS = 0.5
#: Changes of a resource's children come in groups, such as those of a Job, its pod and the scheduler: one pass for all.
#: The first status of a new resource waits as long, and until no other new resource waits for its first child.
DEBOUNCE_SECONDS = 0.3
REFUSED_SECONDS = 5.0
#: What was refused may be allowed at any moment, such as by a quota that others free: nothing tells of it.
MAX_REFUSED_SECONDS = 30.0
#: After so many failures in a row the status shows them.
FAILURES_SHOWN = 4
RESYNC_SECONDS = 600.0
#: The children of all resources that have not ended are listed once in so long.
REFRESH_SECONDS = 1800.0
LOAD_BACKOFF = Backoff(first=0.2, longest=10.0)

AnyReconciler = Reconciler[Any, Any]


class Controller:
    """Work queue, latest bodies and live reports; reconciles each resource with the functions of its kind.

    Args:
        environment: replaced when the installation's settings change.
        name: the resources of this value of the controller's label are reconciled; empty: those without the label.

    Attributes:
        fence: held by all passes.
        went_back: set once the API server's data are older than before: whoever watches the resources starts anew.
    """

    def __init__(
        self,
        client: Client,
        reconcilers: Iterable[AnyReconciler],
        recorder: EventRecorder,
        metrics: Metrics,
        environment: Environment,
        now: Now = utc_now,
        name: str = "",
    ) -> None:
        self.environment = environment
        self.reconcilers = {reconciler.kind: reconciler for reconciler in reconcilers}
        self.bodies = Bodies(_has_ended)
        self.queue: WorkQueue[Key] = WorkQueue(asyncio.get_running_loop())
        self.live = Live(ProgressBoard(self.wake), AgentHub(self.wake))
        self.fence = Fence()
        self._client = client
        self._reader = Reader(client, self.bodies, self.live, now=now)
        self._recorder = recorder
        self._metrics = metrics
        self._now = now
        self._name = name
        self._reconciled_at: dict[str, float] = {}
        self._first_seen_at: dict[str, float] = {}
        self._versions: dict[str, int] = {}
        self._held: dict[str, Body | None] = {}
        self._resync_soon = asyncio.Event()
        self.went_back = asyncio.Event()
        metrics.queue_depth.set_function(lambda: len(self.queue))

    async def load(self) -> None:
        """List all kinds, with retries until it succeeds: observations need all bodies."""
        for kind in self.reconcilers:
            for delay in LOAD_BACKOFF:
                try:
                    async for bodies, version in self._client.pages(API_VERSION, kind, None):
                        for body in bodies:
                            self.handle_event(None, body)
                        self._versions[kind] = version
                except ApiError as error:
                    logger.warning("%s not listed: %s", kind, error.message)
                    await asyncio.sleep(delay)
                else:
                    break

    def handle_event(self, event_type: str | None, body: Body) -> None:
        """Take over an event of a resource's watch; its type is None for objects of a first list.

        A resource that can't be read is left out, with a line in the log: it must not end the process.
        """
        try:
            self._handle_event(event_type, body)
        except Exception:
            logger.exception("odd resource left out", extra={"resource": _reference(body)})

    def _handle_event(self, event_type: str | None, body: Body) -> None:
        if event_type == "DELETED":
            self._forget(body)
        elif body["metadata"]["uid"] in self._held:
            self._held[body["metadata"]["uid"]] = body
        elif self._store(body):
            new = "observedGeneration" not in (body.get("status") or {})
            if new:
                self._first_seen_at[body["metadata"]["uid"]] = time.monotonic()
            if event_type is None and _has_ended(body):
                # Thousands of them have nothing left to do, and what runs must not wait for them.
                self.queue.add_idle(key_of(body))
                self._client.index.set_ended(body["metadata"]["uid"], True)
            else:
                self.queue.add(key_of(body), urgent=new)

    def child_changed(self, owner_uid: str) -> None:
        """Reconcile the resource with this UID: one of its children has ended, or was removed."""
        key = self.bodies.key(owner_uid)
        if key is not None:
            self.queue.add(key)

    def child_stepped(self, owner_uid: str) -> None:
        """Reconcile the resource with this UID soon: one of its children was added or changed."""
        key = self.bodies.key(owner_uid)
        if key is not None:
            self.queue.add_soon(key, DEBOUNCE_SECONDS)

    def wake(self, owner_uid: str, seconds: float) -> None:
        """Reconcile the resource with this UID, at most once per ``seconds``."""
        key = self.bodies.key(owner_uid)
        if key is not None:
            last = self._reconciled_at.get(owner_uid, float("-inf"))
            self.queue.add_after(key, last + seconds - time.monotonic())

    def _store(self, body: Body, went_back: bool = False) -> bool:
        """Keep the body unless a newer one is stored, and reconcile those that wait for its outcome."""
        before = self.bodies.get(key_of(body))
        if not self.bodies.put(body, went_back):
            return False
        if before is None or _outcome(before) != _outcome(body):
            self._wake_referrers(body)
        return True

    def _wake_referrers(self, body: Body) -> None:
        if not self.bodies.has_referrers(key_of(body)):
            return
        mentioned = mentioned_in(body) | self._client.index.mentioned_by(body["metadata"]["uid"])
        for referrer in self.bodies.referrers(key_of(body), mentioned):
            self.queue.add(referrer)

    async def work(self) -> None:
        """Reconcile one resource after another, without end."""
        while True:
            key = await self.queue.get()
            try:
                await self._reconcile_counted(key)
            except Exception:
                # One resource must not end the worker, and with it the process, again and again.
                logger.exception("reconcile failed", extra={"resource": key._asdict()})
                self.queue.back_off(key, 1.0)
            finally:
                self.queue.done(key)
            # A pass that finds nothing to do waits for nothing: thousands in a row would keep probes and watches
            # waiting.
            await asyncio.sleep(0)

    async def drain(self) -> None:
        """Begin no more passes, finish those in progress, and send the states that they published."""
        await self.queue.stop()
        await self.live.agents.flush()

    async def resync(self, seconds: float = RESYNC_SECONDS) -> None:
        """List and reconcile everything at intervals, since watches may miss changes."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._resync_soon.wait()
            went_back = self._resync_soon.is_set()
            if went_back:
                # Lease and watches notice it one after the other.
                await asyncio.sleep(SETTLE_SECONDS)
            self._resync_soon.clear()
            for kind in self.reconcilers:
                # What is known of an API server that went back is wrong until the list has come.
                for delay in LOAD_BACKOFF:
                    try:
                        await self.resync_kind(kind, went_back)
                    except ApiError as error:
                        logger.warning("resync of %s failed: %s", kind, error.message)
                    else:
                        break
                    if not went_back:
                        break
                    await asyncio.sleep(delay)
            if went_back and not self._resync_soon.is_set():
                self.fence.catch_up()

    def resync_soon(self) -> None:
        """Let ``resync`` begin now, and no pass before its end: the API server's data went back."""
        self.fence.go_back()
        self._client.index.go_back()
        self._resync_soon.set()

    async def resync_kind(self, kind: str, went_back: bool = False) -> None:
        """List one kind: reconcile all of it, forget what was deleted.

        Where the list is older than the one before, the API server's etcd was restored from a backup: then the list
        counts, whatever its versions, and ``went_back`` is set.

        Args:
            went_back: something else has told so already; versions may have caught up since.
        """
        present: set[str] = set()
        last, version = self._versions.get(kind, 0), 0
        async for bodies, version in self._client.pages(API_VERSION, kind, None):
            went_back = went_back or version < last
            if went_back and not present:
                self.bodies.go_back()
            for body in bodies:
                present.add(body["metadata"]["uid"])
                self._take_listed(body, went_back)
        if went_back:
            logger.warning("the API server went back: %s is at version %d after %d", kind, version, last)
            self.went_back.set()
        self._versions[kind] = version
        await self._forget_missing(kind, present)

    def _take_listed(self, body: Body, went_back: bool) -> None:
        changed = True
        try:
            changed = self._store(body, went_back)
        except Exception:
            logger.exception("odd resource left out", extra={"resource": _reference(body)})
        # What has ended and was looked at changes only with its children, and those are watched.
        if changed or went_back or not (_has_ended(body) and body["metadata"]["uid"] in self._reconciled_at):
            self.queue.add(key_of(body))

    async def _forget_missing(self, kind: str, present: Container[str]) -> None:
        for uid, key in self.bodies.uids(kind).items():
            if uid in present:
                continue
            # It may be younger than the list.
            found = await self._client.get(API_VERSION, kind, key.namespace, key.name)
            stored = self.bodies.get(key)
            gone = found is None or found["metadata"]["uid"] != uid
            if gone and stored is not None and stored["metadata"]["uid"] == uid:
                self._forget(stored)

    async def refresh_children(self, seconds: float = REFRESH_SECONDS) -> None:
        """List anew the children of resources that have not ended, spread over the time: watches may miss changes."""
        while True:
            keys = [key for kind in self.reconcilers for key in self.bodies.uids(kind).values()]
            pause = seconds / max(1, len(keys))
            for key in keys:
                await asyncio.sleep(pause)
                body = self.bodies.get(key)
                if body is None or _has_ended(body) or not self._is_ours(body):
                    continue
                try:
                    await self._list_children(key, body["metadata"]["uid"])
                except ApiError as error:
                    logger.warning(
                        "children not listed: %s", error.message, extra={"resource": key._asdict()}
                    )
            if not keys:
                await asyncio.sleep(seconds)

    async def _list_children(self, key: Key, uid: str) -> None:
        selector = children_selector(uid)
        for api_version, kind in self.reconcilers[key.kind].children:
            if self._client.index.find(api_version, kind, uid) is None:
                continue
            listing = self._client.index.begin_list(api_version, kind, key.namespace, owner_uid=uid)
            async for bodies, version in self._client.pages(api_version, kind, key.namespace, selector):
                listing.add(bodies, version)
            listing.end()

    def _forget(self, body: Body) -> None:
        """Drop all data about a deleted resource; its children follow by their owner references."""
        uid = body["metadata"]["uid"]
        if self.bodies.drop(body):
            self.queue.forget(key_of(body))
            self._wake_referrers(body)
        self._client.index.forget_removed_pods(uid)
        self._client.index.set_ended(uid, False)
        self.live.progress.forget(uid)
        self.live.agents.forget(uid)
        self._reader.mounts.forget(uid)
        self._reader.workloads.forget(uid)
        self._reconciled_at.pop(uid, None)
        self._first_seen_at.pop(uid, None)

    async def _reconcile_counted(self, key: Key) -> None:
        await self.fence.wait()
        body = self.bodies.get(key)
        if body is None or "deletionTimestamp" in body["metadata"] or not self._is_ours(body):
            return
        started = self._reconciled_at[body["metadata"]["uid"]] = time.monotonic()
        proceed = partial(self.fence.wait_since, self.fence.setbacks)
        outcome = await self._reconcile_guarded(key, body, proceed)
        self._metrics.reconciles.labels(key.kind, outcome).inc()
        self._metrics.reconcile_seconds.labels(key.kind).observe(time.monotonic() - started)

    def _is_ours(self, body: Body) -> bool:
        return controller_of(body["metadata"].get("labels") or {}) == self._name

    async def _reconcile_guarded(self, key: Key, body: Body, proceed: Proceed) -> str:
        """One pass; any failure schedules another one. Returns the outcome."""
        try:
            outcome = await self._reconcile(key, body, proceed)
        except Conflict:
            await self._reread(key)
            return "retried"
        except Refused as error:
            self.queue.back_off(key, REFUSED_SECONDS, MAX_REFUSED_SECONDS)
            taken = isinstance(error, NameTaken)
            reason = RefusalReason.NAME_TAKEN if taken else RefusalReason.REFUSED
            await self._show_failure(body, reason, error.message, proceed)
            return "refused"
        except ApiError as error:
            if isinstance(error, Gone):
                # Perhaps the resource itself: deleted after it was listed and before its watch began.
                await self._reread(key)
            else:
                asked_wait = error.retry_after if isinstance(error, Retryable) else None
                self.queue.back_off(key, asked_wait or 0.0)
            if self.queue.failures(key) >= FAILURES_SHOWN:
                await self._show_failure(body, RefusalReason.UNAVAILABLE, error.message, proceed)
            return "retried"
        except Exception as error:
            logger.exception("reconcile failed", extra={"resource": _reference(body)})
            self.queue.back_off(key, 1.0)
            # The exception's text may hold values that readers of the status may not see.
            await self._show_failure(
                body, RefusalReason.INTERNAL, f"{type(error).__name__} in the operator; see its log", proceed
            )
            return "failed"
        if outcome != "refused":
            self.queue.succeeded(key)
        return outcome

    async def _reconcile(self, key: Key, body: Body, proceed: Proceed) -> str:
        """Parse, observe, plan, execute."""
        reconciler = self.reconcilers[key.kind]
        try:
            resource = reconciler.parse(without_invalid(body))
        except ValueError as error:
            await self._carry_out(key, body, plan_invalid(body, error, self._now()), proceed)
            return "invalid"
        # Before the observation: what changes from now on leads to another pass.
        self.bodies.set_references(key, reconciler.references(resource))
        observed = await reconciler.observe(self._reader, resource)
        plan = reconciler.plan(resource, observed, self._now(), self.environment)
        refused = await self._carry_out(key, body, plan, proceed)
        if refused is None:
            return "done"
        logger.warning("refused: %s", refused.message, extra={"resource": _reference(body)})
        self.queue.back_off(key, REFUSED_SECONDS, MAX_REFUSED_SECONDS)
        return "refused"

    async def _carry_out(self, key: Key, body: Body, plan: Plan, proceed: Proceed) -> ApiError | None:
        """Execute; returns the error of an action that status shows by itself."""
        uid = body["metadata"]["uid"]
        makes_children = any(isinstance(action, Create | Apply) for action in plan.actions)
        # The children of all new resources come before the statuses of any.
        status_later = uid in self._first_seen_at and makes_children
        with self._holding_events(uid):
            executed = await execute(
                self._client,
                self.live.agents,
                self._recorder,
                body,
                plan,
                self._now(),
                proceed,
                status_later=status_later,
            )
            after = executed.body
            if is_written := version_of(after) != version_of(body):
                self._store(after)
        first_seen_at = self._first_seen_at.pop(uid, None)
        if first_seen_at is not None and makes_children:
            self._metrics.first_child_seconds.labels(body["kind"]).observe(time.monotonic() - first_seen_at)
        if ended := _has_ended(after):
            self.live.progress.forget(uid)
        self._client.index.set_ended(uid, ended)
        if status_later:
            self.queue.add_soon(key, DEBOUNCE_SECONDS)
        elif is_written and (plan.actions or _outcome(after) != _outcome(body)):
            self.queue.add_after(key, SETTLE_SECONDS)
        if plan.requeue_after is not None:
            self.queue.add_after(key, plan.requeue_after)
        return executed.refused

    @contextlib.contextmanager
    def _holding_events(self, uid: str) -> Iterator[None]:
        """Take over events of this resource after the block: the echo of a write may overtake the answer to it."""
        self._held[uid] = None
        try:
            yield
        finally:
            held = self._held.pop(uid, None)
            if held is not None:
                self.handle_event("MODIFIED", held)

    async def _show_failure(self, body: Body, reason: RefusalReason, message: str, proceed: Proceed) -> None:
        """Write the failure into the log, the status and an event."""
        logger.warning("%s: %s", reason, message, extra={"resource": _reference(body)})
        try:
            plan = plan_refusal(body, reason, message, self._now())
            executed = await execute(
                self._client, self.live.agents, self._recorder, body, plan, self._now(), proceed
            )
        except Conflict:
            await self._reread(key_of(body))
        except ApiError as error:
            logger.warning("status not written: %s", error.message, extra={"resource": _reference(body)})
        except Exception:
            # A status that can't be merged must not end the worker, and with it the process, again and again.
            logger.exception("status not written", extra={"resource": _reference(body)})
            self._recorder.record(body, Event(reason, message, "Warning"))
        else:
            self._store(executed.body)

    async def _reread(self, key: Key) -> None:
        """Read the latest body and reconcile again: the stored one was outdated."""
        try:
            body = await self._client.get(API_VERSION, key.kind, key.namespace, key.name)
        except ApiError:
            self.queue.back_off(key)
            return
        stored = self.bodies.get(key)
        if body is not None:
            self._store(body)
            self.queue.back_off(key)
        elif stored is not None:
            self._forget(stored)


def _outcome(body: Body) -> Sequence[object]:
    """The part of a status that other resources depend on."""
    status = body.get("status") or {}
    phase = status.get("phase")
    return (
        phase if phase in {"Succeeded", "Failed"} else None,
        status.get("artifact"),
        status.get("verdict"),
        [checkpoint.get("step") for checkpoint in status.get("checkpoints") or ()],
        [(alias.get("stable") or {}).get("digest") for alias in status.get("adapters") or ()],
    )


def _has_ended(body: Body) -> bool:
    """True for a run that is over: nothing of it changes any more."""
    return (body.get("status") or {}).get("phase") in {"Succeeded", "Failed"}


def _reference(body: Body) -> dict[str, str]:
    metadata = body.get("metadata") or {}
    names = {name: str(metadata.get(name)) for name in ("namespace", "name", "uid")}
    return {"kind": str(body.get("kind")), **names}
