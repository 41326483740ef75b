"""GPUs that pods hold, the time for which they held them, and its price, as Prometheus metrics.

Time is counted by this process's own steady clock, from when it sees a pod with GPUs started until it sees its end.
So clocks that differ change nothing, and nothing is counted twice when another replica takes over. While none leads
nothing is counted. What one resource cost over its life stands in its status.
"""

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tunesmith.api.common import GPU_NAMES
from tunesmith.decide.run.usage import is_active
from tunesmith.manifests.names import OWNER_UID_LABEL, QUEUE_LABEL
from tunesmith.manifests.objects import Body

_GPU_NAMES = re.compile(GPU_NAMES)
_NOT_OF_LABELS = re.compile(r"[^a-zA-Z0-9_]")
_HOUR = 3600.0

Series = tuple[str, ...]
"""Values of the labels of one series."""


@dataclass(frozen=True, slots=True)
class Price:
    """Price of an hour of a GPU.

    Attributes:
        resource: name of the extended resource, such as ``nvidia.com/gpu``.
        per_hour: in units of the currency.
    """

    resource: str
    per_hour: float
    currency: str


@dataclass(slots=True)
class _Pod:
    """A pod that holds GPUs.

    Attributes:
        gpus: by the name of their resource.
        owner: the resource that it belongs to, as last seen.
        counted_to: time of the steady clock up to which its time is counted.
    """

    owner_uid: str
    owner: Body
    gpus: Mapping[str, float]
    counted_to: float


@dataclass(slots=True, eq=False)
class GPUTime(Collector):
    """Collector of the metrics of GPU time.

    Args:
        find_owner: the resource with this UID; None where it is not known.
        owner_labels: labels of resources that become labels of the metrics.
        prices: prices by resource; ``budget.pricePerGpuHour`` of a FineTuneJob takes precedence.
        clock: monotonic seconds.
    """

    find_owner: Callable[[str], Body | None]
    owner_labels: Sequence[str] = ()
    prices: Sequence[Price] = ()
    clock: Callable[[], float] = time.monotonic
    _pods: dict[str, _Pod] = field(default_factory=dict)
    _seconds: dict[Series, float] = field(default_factory=lambda: defaultdict(float))
    _costs: dict[Series, float] = field(default_factory=lambda: defaultdict(float))

    def pod_changed(self, body: Body, deleted: bool) -> None:
        """Take over the state of a pod; called with its whole body."""
        metadata = body["metadata"]
        uid, pod = metadata["uid"], self._pods.get(metadata["uid"])
        if deleted or not is_active(body):
            if pod is not None:
                self._count(pod)
                del self._pods[uid]
        elif pod is None and (gpus := held_gpus(body)):
            owner_uid = metadata["labels"][OWNER_UID_LABEL]
            unknown = {"kind": "", "metadata": {"namespace": metadata["namespace"]}}
            self._pods[uid] = _Pod(owner_uid, unknown, gpus, self.clock())

    def describe(self) -> Iterable[Metric]:
        """No metric yet: they are there from the first scrape on."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """GPUs held now, and the time and the cost up to now."""
        names = ("namespace", "kind", "queue", "resource", *map(label_name, self.owner_labels))
        held = GaugeMetricFamily("tunesmith_gpus", "GPUs that pods hold now", labels=names)
        now: dict[Series, float] = defaultdict(float)
        for pod in self._pods.values():
            self._count(pod)
            for resource, gpus in pod.gpus.items():
                now[self._series(pod, resource)] += gpus
        seconds = CounterMetricFamily(
            "tunesmith_gpu_seconds", "GPUs times seconds that pods held them", labels=names
        )
        costs = CounterMetricFamily(
            "tunesmith_gpu_cost", "Price of that time, where there is one", labels=(*names, "currency")
        )
        # A series stays after its last pod, at 0, so that it does not seem to go on.
        for series in self._seconds:
            held.add_metric(series, now[series])
            seconds.add_metric(series, self._seconds[series])
        for series, cost in self._costs.items():
            costs.add_metric(series, cost)
        yield from (held, seconds, costs)

    def _count(self, pod: _Pod) -> None:
        now = self.clock()
        elapsed, pod.counted_to = now - pod.counted_to, now
        pod.owner = self.find_owner(pod.owner_uid) or pod.owner
        for resource, gpus in pod.gpus.items():
            series = self._series(pod, resource)
            self._seconds[series] += elapsed * gpus
            if price := self._price(pod.owner, resource):
                self._costs[*series, price.currency] += elapsed * gpus * price.per_hour / _HOUR

    def _series(self, pod: _Pod, resource: str) -> Series:
        metadata = pod.owner["metadata"]
        labels = metadata.get("labels") or {}
        queue = labels.get(QUEUE_LABEL, "")
        of_owner = (labels.get(name, "") for name in self.owner_labels)
        return (metadata["namespace"], pod.owner["kind"], queue, resource, *of_owner)

    def _price(self, owner: Body, resource: str) -> Price | None:
        budget = (owner.get("spec") or {}).get("budget") or {}
        of_installation = next((price for price in self.prices if price.resource == resource), None)
        if written := budget.get("pricePerGpuHour"):
            currency = budget.get("currency") or (of_installation.currency if of_installation else "")
            return Price(resource, float(written), currency)
        return of_installation


def held_gpus(pod: Body) -> dict[str, float]:
    """GPUs of a pod by the name of their extended resource; those of DRA claims are not among them."""
    gpus: dict[str, float] = defaultdict(float)
    # Sidecars are init containers that go on running; other init containers hand their GPUs on.
    containers = pod["spec"].get("containers") or ()
    sidecars = (
        each for each in pod["spec"].get("initContainers") or () if each.get("restartPolicy") == "Always"
    )
    for container in (*containers, *sidecars):
        for name, quantity in ((container.get("resources") or {}).get("limits") or {}).items():
            if _GPU_NAMES.search(name) and float(quantity):
                gpus[name] += float(quantity)
    return dict(gpus)


def label_name(label: str) -> str:
    """Name of the metrics' label for a label of resources, as kube-state-metrics writes it."""
    return f"label_{_NOT_OF_LABELS.sub('_', label)}"
