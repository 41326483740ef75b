"""Level-based control loop of one pod: compares desired state and engine, and starts loads and drains."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from tunesmith_agent.artifacts.cache import ArtifactCache
from tunesmith_agent.engine.client import EngineClient, EngineGone, EngineRefused, EngineUnavailable
from tunesmith_agent.metrics import AgentMetrics, VersionStats
from tunesmith_agent.peers.directory import PeerDirectory
from tunesmith_agent.routing.table import Route, RoutingTable, Target, build_base_target, build_table
from tunesmith_agent.settings import Settings
from tunesmith_contract.agent import (
    FEATURES,
    PROOF_FAILED,
    AgentReport,
    DesiredState,
    LoadedVersion,
    LoadState,
    Version,
    served_name,
)

from .breaker import Breakers, Share, share_of
from .desired_state import DesiredStore
from .loader import LoadFailure, Reservation, VersionLoader
from .residency import Residency
from .versions import (
    Key,
    TrackedVersion,
    answering_versions,
    build_alias_route,
    build_pinned_route,
    desired_versions,
    fallback_version,
    is_complete,
)

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
#: Least time between two steps, however often the loop is woken.
MIN_STEP_SECONDS = 0.02
#: Age at which a failed answer is the version's error, if the engine is alive: one that dies fails all requests first.
DECIDE_SECONDS = 2.0
#: Growing, random pauses: the pods of a deployment do not read the same store in step.
LOAD_RETRY_WAIT = wait_random_exponential(multiplier=0.5, max=30.0)
NOT_READY = "the engine is not ready."


class Reconciler:
    """Owner of the tracked versions and the routing table; everything runs on one event loop.

    Attributes:
        listing_failed: the engine did not list its adapters when it was last asked.
    """

    def __init__(
        self,
        settings: Settings,
        store: DesiredStore,
        engine: EngineClient,
        loader: VersionLoader,
        residency: Residency,
        cache: ArtifactCache,
        metrics: AgentMetrics,
        on_table: Callable[[RoutingTable], None],
        created: int,
        directory: PeerDirectory,
        on_endpoints: Callable[[frozenset[str]], None],
    ) -> None:
        self._settings = settings
        self._store = store
        self._engine = engine
        self._loader = loader
        self._residency = residency
        self._cache = cache
        self._metrics = metrics
        self._on_table = on_table
        self._created = created
        self._directory = directory
        self._on_endpoints = on_endpoints
        self._tracked: dict[Key, TrackedVersion] = {}
        self._last_stable: dict[str, str] = {}
        self._breakers = Breakers()
        self._shares: dict[str, Share] = {}
        self._wake = asyncio.Event()
        self.listing_failed = False
        self._up_since: float | None = None
        self._boot_settled = False
        self._changes: set[asyncio.Event] = set()

    # -- for others

    def wake(self) -> None:
        """Run the next step now: something may have changed."""
        self._wake.set()

    def reload(self, key: Key) -> None:
        """Load a version as at the start: it could not be loaded again for the requests that wait for it."""
        tracked = self._tracked.get(key)
        if tracked is not None and tracked.active:
            self._set_state(tracked, LoadState.LOADING)
            self.wake()

    def lose_undecided(self) -> None:
        """Count the failures that are not decided yet as the engine's, which hangs, or did until now."""
        for stats in self._metrics.versions.values():
            stats.evidence.lose_engine()

    @contextlib.contextmanager
    def changes(self) -> Iterator[asyncio.Event]:
        """Event that is set whenever the report changes."""
        event = asyncio.Event()
        self._changes.add(event)
        try:
            yield event
        finally:
            self._changes.discard(event)

    def not_ready_reason(self) -> str:
        """Reason why this pod can't take requests; empty if it can."""
        if self._up_since is None:
            return "The engine is not up."
        if self._store.current is None:
            return "No desired state has come yet."
        if self._boot_settled:
            return ""
        waited = asyncio.get_running_loop().time() - self._up_since
        is_heard = self._store.is_confirmed or not self._settings.operator_url
        settings = self._settings
        patience = settings.withheld_seconds if self._store.withholds else settings.confirm_seconds
        if not is_heard and waited < patience:
            return "The operator has not confirmed the desired state yet."
        waiting = self._loading_aliases()
        if waiting and waited < self._settings.settle_seconds:
            return f"Loading: {', '.join(waiting[:10])}."
        self._boot_settled = True
        return ""

    def report(self, boot_id: str) -> AgentReport:
        """Report on this pod to the operator."""
        desired, now = self._store.current, asyncio.get_running_loop().time()
        return AgentReport(
            pod_name=self._settings.pod_name,
            pod_uid=self._settings.pod_uid,
            boot_id=boot_id,
            engine_ready=self._up_since is not None and not self._metrics.engine_hangs,
            applied_generation=self._store.confirmed_generation if desired else 0,
            applied_digest=self._store.applied_digest,
            features=FEATURES,
            versions=tuple(self._report_version(tracked) for tracked in self._tracked.values()),
            counters=tuple(
                stats.evidence.to_counters(stats.alias, stats.digest).model_copy(
                    update={"recent": stats.recent_requests(now)}
                )
                for stats in self._metrics.versions.values()
                if stats.digest
            ),
            adapter_slots=self._settings.adapter_slots,
        )

    # -- the loop

    async def run(self) -> None:
        """Reconcile until cancelled."""
        try:
            while True:
                self._wake.clear()
                try:
                    await self.step()
                except Exception:
                    # Level-based: the next step starts from the actual state; serving goes on meanwhile.
                    log.exception("reconciliation failed")
                await asyncio.sleep(MIN_STEP_SECONDS)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._wake.wait()
        finally:
            tasks = [tracked.task for tracked in self._tracked.values() if tracked.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._residency.close()

    async def step(self) -> None:
        """Observe the engine once, and act on it."""
        await self._observe_engine()
        self.apply()

    def apply(self) -> None:
        """Act on desired and observed state: routes change at once, loads and drains start as tasks."""
        desired = self._store.current
        if desired is not None:
            closed = self._breakers.close_changed(desired)
            for tracked in self._tracked.values():
                if tracked.alias in closed:
                    tracked.stats.error_row.end()
            self._begin_steps(desired)
            self._directory.update(desired.peers)
        if self._up_since is not None:
            self._start_missing()
        self._drain_unwanted()
        self._cache.pin({digest for _, digest in self._tracked})
        self._loader.forget_others({alias for alias, _ in self._tracked})
        self._metrics.residency.cache_bytes = self._cache.size
        if desired is not None:
            self._metrics.generation = desired.generation
        self._publish()

    def _begin_steps(self, desired: DesiredState) -> None:
        """Count the clients anew of aliases whose candidate or weight changed."""
        shares = {alias.name: share_of(alias) for alias in desired.aliases}
        for (name, _), stats in self._metrics.versions.items():
            if shares.get(name) != self._shares.get(name):
                stats.evidence.restart_keys()
        self._shares = shares

    async def _observe_engine(self) -> None:
        before, number = self._residency.snapshot(), self._residency.number
        try:
            await self._engine.check_health()
            adapters = await self._engine.adapters()
            if self._up_since is None:
                await self._engine.generate_token()
                self._on_endpoints(await self._engine.endpoints())
        except EngineGone:
            self._mark_engine_down()
            return
        except (EngineUnavailable, EngineRefused) as error:
            # A busy engine may be slow to list its adapters, and goes on answering requests meanwhile.
            log.warning("engine did not list its adapters", extra={"detail": str(error)})
            self.listing_failed = True
            return
        self.listing_failed = False
        if self._up_since is None:
            log.info("engine is up")
            self._up_since = asyncio.get_running_loop().time()
            self._metrics.engine_up = True
        if lost := self._residency.compare(before, adapters):
            self._mark_engine_restarted(lost)
        elif (desired := self._store.current) is not None:
            wanted = {
                served_name(alias, version.digest): (alias, version.digest)
                for alias, version in desired_versions(desired)
            }
            self._residency.adopt(number, adapters, wanted)
        self._decide_failures()
        self._residency.retry()

    def _mark_engine_restarted(self, lost: Collection[Key]) -> None:
        log.warning("the engine lost versions", extra={"aliases": sorted({alias for alias, _ in lost})})
        self._count_failures_as_lost()
        self._up_since = asyncio.get_running_loop().time()
        for key in lost:
            self._residency.lose(key)
        for tracked in tuple(self._tracked.values()):
            # What was proven in the engine before may answer otherwise now, loaded or not.
            if tracked.key in lost or (tracked.active and not tracked.gate.is_resident):
                self._mark_unloaded(tracked)

    def _decide_failures(self) -> None:
        if self._metrics.engine_hangs:
            self.lose_undecided()
            return
        before = asyncio.get_running_loop().time() - DECIDE_SECONDS
        decided = [stats.evidence.decide(before) for stats in self._metrics.versions.values()]
        if any(decided):
            self._signal_change()

    def _mark_engine_down(self) -> None:
        if self._up_since is not None:
            log.warning("engine is down")
        self._count_failures_as_lost()
        self._up_since = None
        self._metrics.engine_up = False
        self._residency.reset()
        for tracked in tuple(self._tracked.values()):
            self._mark_unloaded(tracked)

    def _count_failures_as_lost(self) -> None:
        """Count failures that are undecided as lost with the engine; they were of no version."""
        self._breakers.close_all()
        for stats in self._metrics.versions.values():
            stats.evidence.lose_engine()
            stats.error_row.end()

    def _mark_unloaded(self, tracked: TrackedVersion) -> None:
        """Record that the engine no longer has a version: it must be loaded and proven again."""
        if tracked.task is not None:
            tracked.task.cancel()
            tracked.task = None
        if tracked.state is LoadState.DRAINING:
            self._forget(tracked)
            return
        tracked.settled = self._boot_settled = False
        self._set_state(tracked, LoadState.LOADING, "EngineUnavailable")

    def _start_missing(self) -> None:
        for alias, version in desired_versions(self._store.current):
            tracked = self._tracked.get((alias, version.digest))
            if tracked is None:
                stats = self._metrics.stats(alias, version.digest)
                stats.on_error = self._record_error
                tracked = TrackedVersion(alias, version, stats)
                self._tracked[tracked.key] = tracked
                self._residency.add(tracked.key, stats, tracked.gate)
            elif tracked.state is LoadState.DRAINING:
                self._cancel(tracked)
                tracked.settled = False
                self._set_state(tracked, LoadState.FETCHING)
            self._renew_version(tracked, version)
            if not tracked.busy and tracked.state not in (LoadState.ACTIVE, LoadState.FAILED):
                tracked.task = asyncio.create_task(self._load_with_retries(tracked))

    def _renew_version(self, tracked: TrackedVersion, version: Version) -> None:
        """Take over a new URI of the same digest: a load that failed there may succeed here."""
        if tracked.version.uri != version.uri and not tracked.active:
            self._cancel(tracked)
            self._set_state(tracked, LoadState.FETCHING)
        tracked.version = version

    def _drain_unwanted(self) -> None:
        keep = {(alias, version.digest) for alias, version in desired_versions(self._store.current)}
        keep |= set(self._fallbacks().values())
        for key, tracked in tuple(self._tracked.items()):
            if key not in keep and tracked.state is not LoadState.DRAINING:
                self._cancel(tracked)
                self._set_state(tracked, LoadState.DRAINING)
                tracked.task = asyncio.create_task(self._drain(tracked))

    def _cancel(self, tracked: TrackedVersion) -> None:
        if tracked.task is not None:
            tracked.task.cancel()
            tracked.task = None

    # -- one version

    async def _load_with_retries(self, tracked: TrackedVersion) -> None:
        retrying = AsyncRetrying(
            retry=retry_if_exception(_is_retryable),
            wait=LOAD_RETRY_WAIT,
            before_sleep=partial(self._record_failed_load, tracked),
            reraise=True,
        )
        try:
            reservation: Reservation = await retrying(
                self._loader.load, tracked.alias, tracked.version, partial(self._set_state, tracked)
            )
        except LoadFailure as failure:
            tracked.settled = True
            tracked.permanent = failure.reason != PROOF_FAILED
            self._set_state(tracked, LoadState.FAILED, failure.reason, str(failure))
        else:
            tracked.settled = True
            tracked.stats.error_row.end()
            tracked.switches = reservation.chat.switches if reservation.chat else None
            self._set_state(tracked, LoadState.ACTIVE, reservation.reason, reservation.message)
            self.wake()

    def _record_failed_load(self, tracked: TrackedVersion, retry_state: RetryCallState) -> None:
        """Report a load that will be tried again."""
        error = retry_state.outcome.exception() if retry_state.outcome else None
        if isinstance(error, LoadFailure):
            tracked.settled = tracked.settled or error.reason != "EngineUnavailable"
            message = f"{error} Next try in {retry_state.upcoming_sleep:.2f} s."
            self._set_state(tracked, LoadState.FAILED, error.reason, message)
        else:
            log.error("loading a version failed", exc_info=error)
            self._set_state(tracked, LoadState.FAILED, "InternalError", repr(error))

    async def _drain(self, tracked: TrackedVersion) -> None:
        """Wait for its last request, however long it takes, then unload it from the engine."""
        await self._residency.unload(tracked.key)
        self._forget(tracked)
        self._publish()

    def _forget(self, tracked: TrackedVersion) -> None:
        del self._tracked[tracked.key]
        self._residency.forget(tracked.key)
        self._metrics.forget_versions(self._tracked)

    def _set_state(
        self, tracked: TrackedVersion, state: LoadState, reason: str = "", message: str = ""
    ) -> None:
        if (tracked.state, tracked.reason, tracked.message) == (state, reason, message):
            return
        tracked.state, tracked.reason, tracked.message = state, reason, message
        level = logging.WARNING if state is LoadState.FAILED else logging.INFO
        details = {
            "alias": tracked.alias,
            "digest": tracked.version.digest,
            "reason": reason,
            "detail": message,
        }
        log.log(level, "version is %s", state, extra=details)
        self._publish()
        tracked.gate.set_proven(tracked.active)
        if state is LoadState.FAILED:
            tracked.gate.release()

    # -- routes and report

    def _publish(self) -> None:
        """Build the routes from the active versions, and signal a changed report."""
        desired = self._store.current
        fallbacks = self._fallbacks()
        routes: list[Route] = []
        instead: dict[Key, Target] = {}
        for alias in desired.aliases if desired else ():
            breaker_open = self._breakers.is_open(alias.name)
            homes = self._directory.homes(alias.name, is_complete=is_complete(alias, self._tracked))
            fallback = fallbacks.get(alias.name)
            route = build_alias_route(alias, self._tracked, fallback, breaker_open, homes)
            routes.append(route)
            if breaker_open and alias.candidate is not None and route.stable is not None:
                instead[alias.name, alias.candidate.digest] = route.stable
            stable = self._tracked.get((alias.name, alias.stable.digest)) if alias.stable else None
            if stable is not None and stable.active:
                self._last_stable[alias.name] = stable.version.digest
        for tracked in self._tracked.values():
            if tracked.state is not LoadState.DRAINING:
                homes = self._directory.homes(tracked.alias, is_complete=tracked.active)
                routes.append(build_pinned_route(tracked, homes, instead.get(tracked.key)))
        # The last of a name wins: no alias stands in front of the base model.
        routes.append(self._base_route())
        self._metrics.breakers_open = len(self._breakers)
        self._on_table(build_table(routes, self._created))
        self._signal_change()

    def _signal_change(self) -> None:
        for event in self._changes:
            event.set()

    def _base_route(self) -> Route:
        name = self._settings.base_model
        target = (
            build_base_target(name, self._metrics.stats(name, "")) if self._up_since is not None else None
        )
        homes = self._directory.everywhere if target is None else None
        if homes is not None:
            target = replace(build_base_target(name, self._metrics.stats(name, "")), is_here=False)
        uses_keys = homes is not None
        return Route(name, target, unavailable_reason=NOT_READY, uses_keys=uses_keys, homes=homes)

    def _fallbacks(self) -> dict[str, Key]:
        desired = self._store.current
        fallbacks = {
            alias.name: fallback_version(alias, self._tracked, self._last_stable.get(alias.name, ""))
            for alias in (desired.aliases if desired else ())
        }
        return {name: key for name, key in fallbacks.items() if key is not None}

    def _loading_aliases(self) -> list[str]:
        """Aliases with a version that gets requests and was neither active nor failed since this start of the engine.

        A pod that was ready without a candidate would send its part of the conversations to the stable version.
        """
        desired = self._store.current
        settled = {tracked.key for tracked in self._tracked.values() if tracked.settled}
        return [
            alias.name
            for alias in (desired.aliases if desired else ())
            if any((alias.name, version.digest) not in settled for version in answering_versions(alias))
        ]

    def _record_error(self, stats: VersionStats) -> None:
        if self._breakers.record_error(stats, self._store.current):
            log.warning("breaker opened", extra={"alias": stats.alias, "digest": stats.digest})
            self._publish()

    def _report_version(self, tracked: TrackedVersion) -> LoadedVersion:
        desired = self._store.current
        candidates = {
            (alias.name, alias.candidate.digest)
            for alias in (desired.aliases if desired else ())
            if alias.candidate
        }
        is_open = tracked.key in candidates and self._breakers.is_open(tracked.alias)
        return tracked.to_report(self._breakers.clients(tracked.alias) if is_open else None)


def _is_retryable(error: BaseException) -> bool:
    """True for a failed load that may succeed later; a cancellation is not one."""
    return error.retryable if isinstance(error, LoadFailure) else isinstance(error, Exception)
