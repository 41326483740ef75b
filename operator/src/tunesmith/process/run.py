"""Life of the process: settings, servers, election, watches and workers; when one part ends, all end."""

import asyncio
import gc
import logging
import signal
import ssl
import sys
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from functools import partial

import uvloop
from pydantic import ValidationError

from tunesmith.cluster.controller import AnyReconciler, Controller
from tunesmith.cluster.gpu_time import GPUTime, Price
from tunesmith.cluster.reconciler import utc_now
from tunesmith.controller_runtime.backoff import Backoff
from tunesmith.controller_runtime.client import Client
from tunesmith.controller_runtime.connection import Connection, NoCredentials
from tunesmith.controller_runtime.errors import ApiError, Refused
from tunesmith.controller_runtime.events import EventRecorder
from tunesmith.controller_runtime.index import WATCHED_KINDS, ChildIndex
from tunesmith.controller_runtime.lease import LeaderLease, LeaseLost, LeaseTimes
from tunesmith.controller_runtime.metrics import Metrics
from tunesmith.controller_runtime.tls import ensure_material, load_into
from tunesmith.controller_runtime.tokens import TokenReviewer
from tunesmith.controller_runtime.watch import Watch
from tunesmith.decide.refusal import describe
from tunesmith.manifests.environment import Environment
from tunesmith.manifests.names import API_VERSION, OWNER_UID_LABEL
from tunesmith.manifests.objects import Body
from tunesmith.manifests.operator_certificate import Material

from .health import Health
from .logs import set_up_logs
from .loop_thread import LoopThread
from .pods import PodServer, build_pod_app
from .registry import RECONCILERS
from .servers import build_plain_app, serving
from .settings import Settings, read_settings
from .watching import keep_watching

logger = logging.getLogger(__name__)

RETRY_BACKOFF = Backoff(first=0.5, longest=10.0)
RENEWAL_SECONDS = 3600.0
FLUSH_SECONDS = 2.0
#: Longest time after a signal for passes in progress, so that no pod gets a state that others do not get.
DRAIN_SECONDS = 3.0
SYNC_SECONDS = 120.0
#: API group of OpenShift's SecurityContextConstraints.
SECURITY_CONSTRAINTS = "security.openshift.io"
CLAIM_NAME = "tunesmith-controller"
#: Allocations between two looks of the collector at young objects. kopf leaves some cycles for each event; with
#: Python's 700, one twentieth of the operator's processor time went into the collector.
YOUNG_OBJECTS = 10_000
CLAIM_TIMES = LeaseTimes(duration=60.0, deadline=40.0, retry=5.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the operator until a signal or a failure; returns the exit status."""
    try:
        settings = read_settings(sys.argv[1:] if arguments is None else arguments)
    except ValidationError as error:
        sys.stderr.write(f"error: {describe(error)}\n")
        return 2
    set_up_logs(settings.log_level, settings.log_format)
    # Imported objects live as long as the process: to look through them for garbage takes a third of the start. Of what
    # the first lists bring, nearly all stays.
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    try:
        uvloop.run(run(settings, RECONCILERS))
    except Exception as error:
        for leaf in _leaves(error):
            expected = isinstance(leaf, LeaseLost | NoCredentials | ApiError)
            logger.error("the operator ends: %s", leaf, exc_info=None if expected else leaf)
        return 1
    return 0


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions of nested groups."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


async def run(settings: Settings, reconcilers: Sequence[AnyReconciler]) -> None:
    """Run the operator until SIGTERM or SIGINT.

    Raises:
        LeaseLost: another replica leads.
        RuntimeError: a part that must not end has ended.
    """
    stop = asyncio.Event()
    take_signals = partial(_stop_on_signals, stop)
    take_signals()
    operator = Operator(settings, reconcilers, take_signals)
    await run_until(stop, operator.run(), operator.drain)


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def run_until(
    stop: asyncio.Event, work: Coroutine[None, None, None], drain: Callable[[], Awaitable[None]]
) -> None:
    """Run the work until it ends, or ``stop`` is set and ``drain`` has ended; then cancel it and wait for its end."""
    worker = asyncio.create_task(work, name="operator")
    waiter = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait((worker, waiter), return_when=asyncio.FIRST_COMPLETED)
    if not worker.done():
        await drain()
    waiter.cancel()
    worker.cancel()
    await asyncio.gather(worker, waiter, return_exceptions=True)
    if not worker.cancelled() and (error := worker.exception()) is not None:
        raise error


class Operator:
    """One replica.

    Args:
        take_signals: installs the process's signal handlers.
    """

    def __init__(
        self,
        settings: Settings,
        reconcilers: Sequence[AnyReconciler],
        take_signals: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._take_signals = take_signals
        self._reconcilers = reconcilers
        self._metrics = Metrics()
        self._health = Health(self._metrics)
        gpu_time = GPUTime(
            self._find_owner,
            settings.metrics_owner_labels,
            tuple(Price(price.resource, price.perHour, price.currency) for price in settings.gpu_prices),
        )
        self._metrics.registry.register(gpu_time)
        self._index = ChildIndex(
            self._child_changed, on_step=self._child_stepped, on_pod=gpu_time.pod_changed
        )
        self._connection = Connection()
        self._client = Client(self._connection, self._metrics, self._index, settings.watch_namespaces)
        # Hundreds of passes at a time fill the connections and slow the loop down; the lease waits for neither.
        self._lease_thread = LoopThread("lease")
        self._lease_client = Client(Connection(), self._metrics, ChildIndex(lambda uid: None))
        self._recorder = EventRecorder(self._client, self._metrics, settings.pod_name)
        self._controller: Controller | None = None
        self._pods = PodServer(TokenReviewer(self._client), self._metrics)
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._assigned_ids = settings.platform == "OpenShift"

    async def run(self) -> None:
        """Serve, wait for the lease, and lead."""
        settings = self._settings
        plain_app = build_plain_app(self._metrics, self._health.liveness, self._health.readiness)
        async with self._client, serving(plain_app, settings.host, settings.http_port):
            await self._wait_for_api()
            material = await self._renew()
            self._health.serving = True
            identity = f"{settings.pod_name}_{uuid.uuid4().hex[:8]}"
            async with self._lease_thread as thread, thread.opened(self._lease_client):
                lease = LeaderLease(self._lease_client, settings.namespace, settings.lease_name, identity)
                await thread.run(lease.acquire())
                # Pods reach the replicas through one Service. Those that do not lead refuse connections, which costs
                # them and the pods next to nothing, so that a pod tries again at once and finds the leader.
                async with serving(build_pod_app(self._pods), settings.host, settings.tls_port, self._tls):
                    await self._lead(lease, material)

    async def drain(self) -> None:
        """Finish what a leader has begun, within a short time; what is left is its successor's."""
        if self._controller is None:
            return
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._controller.drain()
        except TimeoutError:
            logger.warning("passes in progress were not finished within %.0f s", DRAIN_SECONDS)

    async def _lead(self, lease: LeaderLease, material: Material) -> None:
        self._metrics.leader.set(1)
        environment = Environment(
            trainer_image=self._settings.trainer_image,
            trainer_cuda=self._settings.trainer_cuda,
            serving_image=self._settings.serving_image,
            serving_gpu_image=self._settings.serving_gpu_image,
            serving_gpu_cuda=self._settings.serving_gpu_cuda,
            operator_url=self._settings.operator_url,
            ca_bundle=material.bundle,
            lost_pod_seconds=self._settings.lost_pod_seconds,
            gpu_runtime_class=self._settings.gpu_runtime_class,
            gpu_tolerations=tuple(toleration.to_dict() for toleration in self._settings.gpu_tolerations),
            gpu_resource=self._settings.gpu_resource,
            limit_rules=self._settings.limit_request_ratio.to_rules(),
            term=lease.term,
            traces_endpoint=self._settings.traces_endpoint,
            traces_ratio=str(self._settings.traces_ratio),
            serving_network=sources.to_network() if (sources := self._settings.serving_network) else None,
            assigned_ids=self._assigned_ids,
            outbound=self._settings.outbound,
        )
        controller = Controller(
            self._client,
            self._reconcilers,
            self._recorder,
            self._metrics,
            environment,
            now=self._client.clock.now,
            name=self._settings.controller_name,
        )
        controller.live.agents.peer_secret = material.authority_key
        self._controller = self._pods.controller = controller
        try:
            await self._run_parts(controller, lease)
        finally:
            self._pods.controller = None
            controller.queue.close()
            await self._hand_over(lease)

    async def _run_parts(self, controller: Controller, lease: LeaderLease) -> None:
        """Run all tasks of the leader; none ends by itself."""
        watches = tuple(self._watches())
        kinds = tuple(controller.reconcilers)
        self._fence_off(controller, watches, lease)
        async with asyncio.TaskGroup() as group:
            in_thread = self._lease_thread.run
            group.create_task(in_thread(lease.hold()), name="lease")
            if claim := self._claim():
                await in_thread(claim.acquire())
                group.create_task(in_thread(claim.hold()), name="claim")
            for watch in watches:
                group.create_task(watch.run(), name=f"watch of {watch.kind}@{watch.namespace}")
            await wait_until_loaded(self._client, watches, controller)
            _spare_collector()
            for number in range(self._settings.workers):
                group.create_task(controller.work(), name=f"worker {number}")
            group.create_task(self._recorder.run(), name="events")
            group.create_task(controller.resync(), name="resync")
            group.create_task(controller.refresh_children(), name="children")
            group.create_task(self._keep_renewed(controller), name="certificates")
            namespaces = self._settings.watch_namespaces
            self._health.leading(kinds, namespaces, watches)
            kopf_watches = keep_watching(
                kinds,
                namespaces,
                controller.handle_event,
                self._take_signals,
                self._connection,
                controller.went_back,
            )
            group.create_task(kopf_watches, name="kopf")
            group.create_task(self._health.check_forever(), name="health")

    def _fence_off(self, controller: Controller, watches: Sequence[Watch], lease: LeaderLease) -> None:
        """Let watches and the lease tell the controller when what it knows may be outdated."""
        list_anew, fence = partial(_list_anew, watches, controller), controller.fence
        for watch in watches:
            watch.on_went_back, watch.on_end = list_anew, fence.doubt
        fence.on_doubt = partial(self._lease_thread.call, lease.doubt)
        call_here = asyncio.get_running_loop().call_soon_threadsafe
        lease.on_went_back = lambda: call_here(list_anew)
        lease.on_confirmed = lambda number: call_here(fence.confirm, number)

    def _claim(self) -> LeaderLease | None:
        """The lease by which one installation of a controller name acts on all namespaces.

        Its holder is the installation, not the replica: a replica that takes over need not wait for it.
        """
        settings = self._settings
        if settings.watch_namespaces or not settings.claim_namespace:
            return None
        name = ".".join(filter(None, (CLAIM_NAME, settings.controller_name)))
        installation = f"{settings.namespace}/{settings.lease_name}"
        return LeaderLease(self._lease_client, settings.claim_namespace, name, installation, CLAIM_TIMES)

    def _watches(self) -> list[Watch]:
        watches: list[Watch] = []
        namespaces = self._settings.watch_namespaces or (None,)
        for api_version, kind in WATCHED_KINDS:
            on_event = partial(self._index.handle_event, api_version, kind)
            of_kind = []
            for namespace in namespaces:
                begin_list = partial(self._index.begin_list, api_version, kind, namespace)
                of_kind.append(
                    Watch(self._client, api_version, kind, namespace, OWNER_UID_LABEL, begin_list, on_event)
                )
            self._index.follow(api_version, kind, partial(_all_synced, of_kind))
            watches += of_kind
        return watches

    def _child_changed(self, owner_uid: str) -> None:
        if self._controller is not None:
            self._controller.child_changed(owner_uid)

    def _find_owner(self, uid: str) -> Body | None:
        if self._controller is None:
            return None
        key = self._controller.bodies.key(uid)
        return None if key is None else self._controller.bodies.get(key)

    def _child_stepped(self, owner_uid: str) -> None:
        if self._controller is not None:
            self._controller.child_stepped(owner_uid)

    async def _wait_for_api(self) -> None:
        """Wait until discovery lists the operator's kinds, which kopf reads only once; see which platform it is."""
        needed = {reconciler.kind for reconciler in self._reconcilers}
        for delay in RETRY_BACKOFF:
            try:
                missing = needed - await self._client.served_kinds(API_VERSION)
                if self._settings.platform == "Auto":
                    self._assigned_ids = await self._client.serves_group(SECURITY_CONSTRAINTS)
            except ApiError as error:
                logger.warning("waiting for the API server: %s", error.message)
            else:
                if not missing:
                    if self._assigned_ids:
                        logger.info("namespaces assign the users and groups of pods, as on OpenShift")
                    return
                logger.warning("waiting for the CRDs of %s", ", ".join(sorted(missing)))
            await asyncio.sleep(delay)

    async def _renew(self) -> Material:
        """Read or renew the serving certificate, and serve it."""
        settings, failures = self._settings, 0
        while True:
            try:
                material = await ensure_material(
                    self._client, settings.namespace, settings.tls_secret, settings.hosts, utc_now
                )
            except Refused:
                raise
            except ApiError as error:
                logger.warning("certificates not read: %s", error.message)
                await asyncio.sleep(RETRY_BACKOFF.seconds(failures))
                failures += 1
            else:
                load_into(self._tls, material)
                return material

    async def _keep_renewed(self, controller: Controller) -> None:
        while True:
            await asyncio.sleep(RENEWAL_SECONDS)
            try:
                material = await self._renew()
            except Exception:
                # The old certificate may still be good for weeks: a Secret that can't be read must not end the process.
                logger.exception("certificates not renewed")
                continue
            controller.environment = replace(controller.environment, ca_bundle=material.bundle)
            controller.live.agents.peer_secret = material.authority_key

    async def _hand_over(self, lease: LeaderLease) -> None:
        """Publish what is queued and release the lease, within a short time: the next replica can lead at once."""
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._recorder.flush(FLUSH_SECONDS / 2)
                await self._lease_thread.run(lease.release())
        except (TimeoutError, ApiError) as error:
            logger.warning("lease not released: %s", error)


def _spare_collector() -> None:
    """Keep the garbage collector from what stays for the life of the process: modules, models, what the lists brought.

    A full collection of them takes 0.1 s of everybody's time, and there is one for each hundred new resources.
    """
    gc.collect()
    gc.freeze()


def _list_anew(watches: Sequence[Watch], controller: Controller) -> None:
    """Take over everything as it is: the API server's data went back."""
    for watch in watches:
        watch.list_anew()
    controller.resync_soon()


def _all_synced(watches: Sequence[Watch]) -> bool:
    return all(watch.synced.is_set() for watch in watches)


async def wait_until_loaded(
    client: Client, watches: Sequence[Watch], controller: Controller, seconds: float = SYNC_SECONDS
) -> None:
    """Wait until all children and all resources are listed, however many they are.

    Raises:
        RuntimeError: no page of any list has come for so many seconds; the log says why.
    """
    loading = asyncio.ensure_future(
        asyncio.gather(controller.load(), *(watch.synced.wait() for watch in watches))
    )
    try:
        pages = -1
        while not loading.done():
            if client.pages_read == pages:
                missing = sorted({watch.kind for watch in watches if not watch.synced.is_set()})
                kinds = ", ".join(missing or controller.reconcilers)
                raise RuntimeError(f"can't list {kinds}: nothing has come for {seconds:.0f} s")
            pages = client.pages_read
            await asyncio.wait((loading,), timeout=seconds)
        await loading
    finally:
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
