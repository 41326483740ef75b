"""Assembly, start and shutdown of the agent."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator

from tunesmith_contract.agent import STATE_FILE

from .artifacts.cache import ArtifactCache
from .artifacts.checks import EngineLimits
from .artifacts.sources import ArtifactSources
from .control.desired_state import DesiredStore, FileWatcher
from .control.fetches import Fetches
from .control.loader import ProofRules, VersionLoader
from .control.operator_link import OperatorLink, operator_socket_url
from .control.reconciler import Reconciler
from .control.residency import Residency
from .control.versions import Key
from .engine.client import EngineClient, EngineRefused, EngineUnavailable
from .http.background import Answer, BackgroundAnswers
from .http.connection import ServerConnection
from .http.limits import Limits
from .http.messages import Request
from .http.server import Server
from .http.upstream import UpstreamPool
from .metrics import AgentMetrics
from .proxying.proxy import Proxy
from .routing.table import RoutingTable
from .settings import Settings

log = logging.getLogger(__name__)

_TEXT = b"content-type: text/plain; charset=utf-8\r\n"
_METRICS_TYPE = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"


class Agent:
    """One agent with all its parts; ``run`` serves until ``stop`` is set."""

    def __init__(self, settings: Settings, limits: Limits | None = None) -> None:
        self.settings = settings
        limits = limits or Limits()
        self.metrics = AgentMetrics()
        self.engine = EngineClient(settings.engine_host, settings.engine_port, settings.base_model)
        self.store = DesiredStore(settings.state_dir / STATE_FILE, self._apply)
        self.pool = UpstreamPool(settings.engine_host, settings.engine_port, limits)
        self.proxy = Proxy(
            self.pool,
            self.metrics,
            self._wake,
            limits.stale_seconds,
            limits.abandoned_seconds,
            settings.wait_seconds,
        )
        self.server = Server(self.proxy, self.metrics.count_refusal, limits)
        self.cache = ArtifactCache(settings.cache_dir, settings.cache_bytes)
        limits_of_engine = EngineLimits(settings.max_rank, settings.base_model_uri)
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
        )
        self._boot_id = uuid.uuid4().hex
        self._background = BackgroundAnswers()
        self.proxy.add("/healthz", self._healthz)
        self.proxy.add("/readyz", self._readyz)
        self.proxy.add("/metrics", self._background.handler(self._metrics_answer))

    async def run(self, stop: asyncio.Event, on_listening: Callable[[int], None] | None = None) -> bool:
        """Serve until ``stop`` is set, then drain; False where requests were cut off.

        Raises:
            OSError: the port is taken, or the disk of the pod is broken.
        """
        self.cache.load()
        self.store.load()
        async with self.engine:
            tasks = [asyncio.create_task(part) for part in self._background_tasks()]
            stopping = asyncio.create_task(stop.wait())
            try:
                port = await self.server.start(self.settings.host, self.settings.port)
                log.info("listening", extra={"port": port})
                if on_listening is not None:
                    on_listening(port)
                await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
                return await self._drain()
            finally:
                for task in (stopping, *tasks):
                    task.cancel()
                results = await asyncio.gather(stopping, *tasks, return_exceptions=True)
                await self.server.stop()
                await self._background.close()
                self.pool.close()
                for result in results:
                    if isinstance(result, Exception):
                        raise result

    def _background_tasks(self) -> Iterator[Coroutine[None, None, None]]:
        """Coroutines that run beside the data path."""
        yield self.reconciler.run()
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
                lambda: self.reconciler.report(self._boot_id),
            ).run()

    async def _drain(self) -> bool:
        log.info("draining")
        self.server.announce_drain()
        await asyncio.sleep(self.settings.lame_duck_seconds)
        return await self.server.drain(self.settings.drain_seconds)

    def _apply(self) -> None:
        self.reconciler.apply()

    def _reload_failed(self, key: Key) -> None:
        self.reconciler.reload(key)

    def _wake(self) -> None:
        self.reconciler.wake()

    def _use_table(self, table: RoutingTable) -> None:
        self.proxy.table = table

    def _healthz(self, connection: ServerConnection, request: Request) -> None:
        connection.respond(200, _TEXT, b"alive\n")

    def _readyz(self, connection: ServerConnection, request: Request) -> None:
        reason = "This pod is shutting down." if self.server.draining else self.reconciler.not_ready_reason()
        if reason:
            connection.respond(503, _TEXT, f"{reason}\n".encode())
        else:
            connection.respond(200, _TEXT, b"ready\n")

    async def _metrics_answer(self) -> Answer:
        try:
            engine = await self.engine.metrics()
        except (EngineUnavailable, EngineRefused):
            engine = b""
        return 200, _METRICS_TYPE, self.metrics.render() + self.metrics.render_residency(engine) + engine
