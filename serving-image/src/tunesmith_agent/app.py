"""Assembly, start and shutdown of the agent."""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

from tunesmith_contract.agent import STATE_FILE, AgentReport

from .access.access import Access
from .artifacts.cache import ArtifactCache
from .artifacts.checks import EngineLimits
from .artifacts.sources import ArtifactSources
from .control.desired_state import DesiredStore, FileWatcher
from .control.engine_queue import EngineQueue
from .control.engine_watch import EngineWatch
from .control.fetches import Fetches
from .control.loader import ProofRules, VersionLoader
from .control.operator_link import OperatorLink, operator_socket_url
from .control.reconciler import Reconciler
from .control.residency import Residency
from .control.versions import Key
from .engine.client import EngineClient
from .engine.metrics import EngineMetrics
from .http.limits import MONITORING_LIMITS
from .http.server import Server
from .http.upstream import UpstreamPool
from .metrics import AgentMetrics
from .monitoring import Monitoring
from .peers.directory import PeerDirectory
from .proxying.proxy import Proxy
from .routing.table import RoutingTable
from .settings import Settings
from .telemetry.telemetry import Telemetry

log = logging.getLogger(__name__)

#: File beside the kept state, with what clients have used.
USAGE_FILE = "usage.json"
#: Between two looks at whether a pod is ready that no event tells of, such as the end of a wait.
LOOK_SECONDS = 0.5


class Agent:
    """One agent with all its parts; ``run`` serves until ``stop`` is set."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = AgentMetrics()
        self.engine = EngineClient(settings.engine_address, settings.base_model)
        self.engine_metrics = EngineMetrics(settings.engine_address)
        self.store = DesiredStore(settings.state_dir / STATE_FILE, self._apply, settings.base_model_uri)
        self.pool = UpstreamPool(settings.engine_address, settings.limits)
        self.directory = PeerDirectory(settings.pod_name, settings.limits)
        self.access = self._make_access() if settings.keys_dir else None
        self.proxy = Proxy(
            self.pool,
            self.metrics,
            self._wake,
            settings.limits.abandoned_seconds,
            settings.wait_seconds,
            self.directory,
            filter(None, settings.media_hosts.split(",")),
            self.access,
        )
        self.engine_queue = EngineQueue(self.pool, self.engine_metrics, settings.queue_requests)
        self.proxy.queue_seconds = self.engine_queue.retry_seconds
        self.telemetry = Telemetry(self.proxy, self.proxy.paths, settings.to_telemetry(), self.metrics)
        self.server = Server(self.telemetry, self.metrics.count_refusal, settings.limits)
        self.cache = ArtifactCache(settings.cache_dir, settings.cache_bytes)
        limits_of_engine = EngineLimits(
            settings.max_rank, settings.base_model_uri, settings.tool_call_parser, settings.reasoning_parser
        )
        sources = ArtifactSources(self.cache, settings.mount_root, settings.secrets_dir, limits_of_engine)
        self.residency = Residency(
            self.engine, settings.adapter_slots, self.metrics.residency, self._reload_failed
        )
        loader = VersionLoader(
            self.engine,
            Fetches(sources, settings.stall_seconds),
            self.residency,
            ProofRules(settings.proof_tolerance, settings.proof_pause_seconds, settings.proof_seconds),
            self.metrics,
        )
        self.reconciler = Reconciler(
            settings,
            self.store,
            self.engine,
            loader,
            self.residency,
            self.cache,
            self.metrics,
            self._use_table,
            int(time.time()),
            self.directory,
            self._use_endpoints,
        )
        self.engine_watch = EngineWatch(
            self.pool,
            self.engine,
            self.engine_metrics,
            settings.engine_silence_seconds,
            settings.engine_token_seconds,
            lambda: self.metrics.engine_up,
            lambda: self.reconciler.listing_failed,
            self._note_engine_watch,
        )
        self._boot_id = uuid.uuid4().hex
        self._monitoring = Monitoring(
            self.server, self.metrics, self.engine_metrics, self._not_ready_reason, self.access
        )
        self.monitoring_server = Server(self._monitoring, self._monitoring.count_refusal, MONITORING_LIMITS)

    async def run(self, stop: asyncio.Event, on_listening: Callable[[int, int], None] | None = None) -> bool:
        """Serve until ``stop`` is set, then drain; False where requests were cut off.

        Args:
            stop: ends the agent.
            on_listening: called with the ports for clients and for monitoring.

        Raises:
            OSError: a port is taken, or the disk of the pod is broken.
        """
        settings = self.settings
        self.cache.load()
        if self.access is not None:
            self.access.load()
        self.store.load()
        is_restarted = self.store.current is not None
        self.telemetry.start()
        async with self.engine, self.engine_metrics:
            tasks = [asyncio.create_task(part) for part in self._background_tasks()]
            stopping = asyncio.create_task(stop.wait())
            try:
                port = self.server.listen(settings.host, settings.port)
                monitoring_port = self.monitoring_server.listen(settings.host, settings.monitoring_port)
                await self.monitoring_server.accept()
                log.info("listening", extra={"port": port, "monitoring_port": monitoring_port})
                if on_listening is not None:
                    on_listening(port, monitoring_port)
                if is_restarted:
                    await self._until_ready(stop)
                await self.server.accept()
                await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
                return await self._drain()
            finally:
                for task in (stopping, *tasks):
                    task.cancel()
                results = await asyncio.gather(stopping, *tasks, return_exceptions=True)
                await self.server.stop()
                await self.monitoring_server.stop()
                await self._monitoring.close()
                self.pool.close()
                self.directory.close()
                self.telemetry.stop()
                for result in results:
                    if isinstance(result, Exception):
                        raise result

    def _background_tasks(self) -> Iterator[Coroutine[None, None, None]]:
        """Coroutines that run beside the data path."""
        yield self.reconciler.run()
        yield self.engine_watch.run()
        yield self.engine_queue.run()
        if self.access is not None:
            yield self.access.run()
        yield FileWatcher(self.settings.desired_dir, self.store).run()
        if self.settings.operator_url:
            settings = self.settings
            url = operator_socket_url(settings.operator_url, settings.namespace, settings.deployment)
            yield OperatorLink(
                url,
                settings.credentials_dir,
                self.store,
                self.reconciler,
                self.metrics,
                self.make_report,
                self.use_peer_key,
                self.access.learn if self.access is not None else None,
            ).run()

    def make_report(self) -> AgentReport:
        """Report on this pod to the operator."""
        report = self.reconciler.report(self._boot_id)
        if self.access is None:
            return report
        return report.model_copy(update={"access": self.access.report()})

    def _make_access(self) -> Access:
        settings = self.settings
        kept = settings.state_dir / USAGE_FILE
        return Access(Path(settings.keys_dir), kept, lambda: self.metrics.operator_connected)

    def use_peer_key(self, key: str) -> None:
        """Take over the secret that the agents of the AdapterDeployment share, in hex."""
        if self.directory.key != key.encode():
            self.directory.use_key(key.encode())
            self.reconciler.apply()

    async def _until_ready(self, stop: asyncio.Event) -> None:
        """Keep clients waiting that a Service still sends to this pod, whose agent was away for a moment."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.wait_seconds
        with self.reconciler.changes() as changed:
            while self.reconciler.not_ready_reason() and not stop.is_set() and loop.time() < deadline:
                changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(LOOK_SECONDS, deadline - loop.time())):
                        await changed.wait()

    async def _drain(self) -> bool:
        log.info("draining")
        self.server.announce_drain()
        await asyncio.sleep(self.settings.lame_duck_seconds)
        return await self.server.drain(self.settings.drain_seconds)

    def _apply(self) -> None:
        if self.access is not None and self.store.current is not None:
            self.access.follow(self.store.current, self.settings.pod_name)
        self.reconciler.apply()

    def _reload_failed(self, key: Key) -> None:
        self.reconciler.reload(key)

    def _wake(self) -> None:
        self.reconciler.wake()

    def _use_table(self, table: RoutingTable) -> None:
        self.proxy.table = table

    def _use_endpoints(self, paths: frozenset[str]) -> None:
        self.proxy.offered = frozenset(path.encode() for path in paths)

    def _note_engine_watch(self) -> None:
        self.proxy.engine_hangs = self.metrics.engine_hangs = self.engine_watch.stalled
        # An engine that goes on first closes connections that it takes for idle, with requests that it has not read.
        self.reconciler.lose_undecided()

    def _not_ready_reason(self) -> str:
        if self.server.draining:
            return "This pod is shutting down."
        access = self.access.not_ready_reason if self.access is not None else ""
        return self.reconciler.not_ready_reason() or self.engine_watch.reason or access
