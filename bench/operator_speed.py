"""How fast a FineTuneJob gets its first child: one at a time, and many at once; and the operator's memory.

Starts a control plane and the operator of its own, and measures from before the request that creates the resource to
the moment at which a watcher in another process has the first child's event. Then the same of Kubeflow Trainer, on a
control plane that is as new.

    python bench/operator_speed.py --output bench/results/operator.json
"""

import argparse
import http.client
import json
import multiprocessing
import os
import platform
import queue
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kopf
import kubeflow_trainer
import yaml
from process_usage import memory_mib, processor_seconds

from tunesmith_cluster.cluster import Cluster, Shape

ROOT = Path(__file__).resolve().parent.parent
GROUP = "/apis/tunesmith.dev/v1alpha1"
OWNER = "tunesmith.dev/owner-name"
JOBS = "/apis/batch/v1/jobs"
PASSES = "tunesmith_reconciles_total{"
PATIENCE = 60.0
#: Between two resources that come one at a time: the pods of the one before are made and looked at by others.
PAUSE = 0.1
#: After the last child of many, statuses, pods and events follow: until so few passes a second were made for so long.
#: Some are always made, for jobs whose pods can't be scheduled.
SETTLE, QUIET = 3.0, 25.0
SETTLED = 40.0

Seen = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Options:
    """What to measure."""

    one_by_one: int
    at_once: int
    threads: int
    command: list[str]
    output: Path | None
    kubeflow: bool


def load_connection() -> kopf.ConnectionInfo:
    """Address and credentials of the kubeconfig that ``KUBECONFIG`` names."""
    connection = kopf.login_with_kubeconfig(settings=kopf.OperatorSettings())
    if connection is None:
        raise RuntimeError("set KUBECONFIG to a kubeconfig file")
    return connection


class Api:
    """One connection to the API server; one thread at a time."""

    def __init__(self, connection: kopf.ConnectionInfo) -> None:
        server = urlsplit(connection.server)
        self._http = http.client.HTTPSConnection(
            server.hostname or "", server.port, context=connection.as_ssl_context(), timeout=60
        )
        self._headers = connection.as_http_headers() | {"Content-Type": "application/json"}

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request.

        Raises:
            RuntimeError: the API server refused.
        """
        response = self.open(method, path, body)
        text = response.read()
        if response.status >= 400:
            raise RuntimeError(f"{method} {path}: {response.status} {text[:500]!r}")
        answer: dict[str, Any] = json.loads(text)
        return answer

    def open(self, method: str, path: str, body: dict[str, Any] | None = None) -> http.client.HTTPResponse:
        """One request, whose response is yet to be read."""
        self._http.request(method, path, json.dumps(body) if body else None, self._headers)
        return self._http.getresponse()


def watch_children(
    path: str, selector: str, news: "multiprocessing.Queue[tuple[str, str, float]]", ready: Event
) -> None:
    """Send the owner's name, the kind's path and the time of every new child; runs in a process of its own."""
    api = Api(load_connection())
    version = api.call("GET", f"{path}?labelSelector={selector}")["metadata"]["resourceVersion"]
    stream = api.open("GET", f"{path}?labelSelector={selector}&watch=true&resourceVersion={version}")
    ready.set()
    for line in stream:
        now = time.monotonic()
        event = json.loads(line)
        if event["type"] == "ADDED":
            news.put((owner_name(event["object"]["metadata"]), path, now))


def owner_name(metadata: dict[str, Any]) -> str:
    """Name of the resource that an object belongs to."""
    name: str = (metadata.get("labels") or {}).get(OWNER) or metadata["ownerReferences"][0]["name"]
    return name


@dataclass(frozen=True)
class Subject:
    """A kind of resource, and the children by which its operator is judged.

    Attributes:
        path: collection of the kind; ``{}`` stands for the namespace.
        build: the resource of a name in a namespace.
        children: paths of all objects of the children's kinds.
        selector: label of the children; empty for all objects of these kinds.
    """

    path: str
    build: Callable[[str, str], dict[str, Any]]
    children: tuple[str, ...]
    selector: str = ""


def build_job(name: str, namespace: str) -> dict[str, Any]:
    """A FineTuneJob as people write it."""
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "baseModel": {"uri": "pvc://models/base"},
            "dataset": {"train": {"uri": "pvc://data/train.jsonl"}},
            "method": {"sft": {}},
            "adapter": {},
            "compute": {"gpusPerNode": 1},
            "output": {"uri": "pvc://artifacts"},
        },
    }


FINE_TUNE_JOB = Subject(
    f"{GROUP}/namespaces/{{}}/finetunejobs", build_job, ("/api/v1/configmaps", JOBS), OWNER
)


class Bench:
    """Creates resources, and collects when their children were seen."""

    def __init__(
        self, news: "multiprocessing.Queue[tuple[str, str, float]]", namespace: str, subject: Subject
    ) -> None:
        self._news = news
        self.namespace = namespace
        self.subject = subject
        self._seen: Seen = {}

    def create(self, api: Api, name: str) -> float:
        """Create one resource; returns the time before the request."""
        started = time.monotonic()
        path = self.subject.path.format(self.namespace)
        api.call("POST", path, self.subject.build(name, self.namespace))
        return started

    def wait(self, names: Sequence[str], kinds: int = 0) -> None:
        """Wait until each of these has children of so many kinds; 0: of all."""
        kinds = kinds or len(self.subject.children)
        deadline = time.monotonic() + PATIENCE
        missing = {name for name in names if len(self._seen.get(name, {})) < kinds}
        while missing:
            try:
                name, path, at = self._news.get(timeout=max(0.1, deadline - time.monotonic()))
            except queue.Empty:
                raise RuntimeError(f"{len(missing)} resources have no child") from None
            self._seen.setdefault(name, {}).setdefault(path, at)
            if len(self._seen[name]) == kinds:
                missing.discard(name)

    def first(self, name: str) -> float:
        """When the first child was seen."""
        return min(self._seen[name].values())

    def last(self, name: str) -> float:
        """When children of all kinds were seen: the last one is the Job."""
        return max(self._seen[name].values())


def measure_one_by_one(bench: Bench, count: int) -> dict[str, Any]:
    """Latencies in milliseconds, of resources some time apart; the first tenth warms up and does not count."""
    api = Api(load_connection())
    first, job = [], []
    for number in range(count + count // 10):
        name = f"one-{number}"
        started = bench.create(api, name)
        bench.wait([name])
        time.sleep(PAUSE)
        first.append(1000 * (bench.first(name) - started))
        job.append(1000 * (bench.last(name) - started))
    return {
        "objects": count,
        "secondsApart": PAUSE,
        "firstChild": describe(first[-count:]),
        "firstJob": describe(job[-count:]),
    }


def measure_floor(bench: Bench, count: int) -> dict[str, float]:
    """Milliseconds from a request that creates a ConfigMap to its event: what no operator can undercut."""
    api, took = Api(load_connection()), []
    for number in range(count):
        name = f"floor-{number}"
        metadata = {"name": name, "labels": {OWNER: name}}
        started = time.monotonic()
        api.call("POST", f"/api/v1/namespaces/{bench.namespace}/configmaps", {"metadata": metadata})
        bench.wait([name], kinds=1)
        took.append(1000 * (bench.first(name) - started))
    return describe(took)


def measure_at_once(
    bench: Bench, count: int, threads: int, pids: Mapping[str, int], settle: Callable[[], None]
) -> dict[str, Any]:
    """Children per second, from the first request to the last first child.

    Args:
        pids: the processes whose processor time is told.
        settle: returns once the work that follows the last child is done too.
    """
    names: queue.SimpleQueue[str] = queue.SimpleQueue()
    for number in range(count):
        names.put(f"many-{number}")
    started: dict[str, float] = {}

    def work() -> None:
        api = Api(load_connection())
        while True:
            try:
                name = names.get_nowait()
            except queue.Empty:
                return
            started[name] = bench.create(api, name)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    used = {name: processor_seconds(pid) for name, pid in pids.items()}
    begin = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    created = time.monotonic()
    bench.wait(list(started))
    end = max(bench.first(name) for name in started)
    last_job = max(bench.last(name) for name in started)
    settle()
    spent = {name: processor_seconds(pid) - used[name] for name, pid in pids.items()}
    return {
        "objects": count,
        "threads": threads,
        "createdPerSecond": round(count / (created - begin), 1),
        "childrenPerSecond": round(count / (end - begin), 1),
        "jobsPerSecond": round(count / (last_job - begin), 1),
        "firstChild": describe([1000 * (bench.first(name) - at) for name, at in started.items()]),
        "processorMsPerObject": {name: round(1000 * seconds / count, 2) for name, seconds in spent.items()},
    }


def describe(milliseconds: Sequence[float]) -> dict[str, float]:
    """p50, p99 and the longest, in milliseconds."""
    cuts = statistics.quantiles(milliseconds, n=100, method="inclusive")
    return {
        "p50": round(cuts[49], 2),
        "p99": round(cuts[98], 2),
        "longest": round(max(milliseconds), 2),
    }


class Operator:
    """The operator's process."""

    def __init__(self, process: "subprocess.Popen[bytes]", http_port: int) -> None:
        self._process = process
        self._http_port = http_port

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def is_leading(self) -> bool:
        """Whether it leads.

        Raises:
            RuntimeError: it has ended.
        """
        if self._process.poll() is not None:
            raise RuntimeError("the operator has ended")
        return "tunesmith_leader 1.0" in self._metrics()

    def calls(self) -> dict[str, int]:
        """How often it called the API server, by verb, kind and code."""
        calls = {}
        for line in self._metrics().splitlines():
            if line.startswith("tunesmith_api_calls_total{"):
                labels, value = line.removeprefix("tunesmith_api_calls_total").rsplit(" ", 1)
                code, kind, verb = (part.split('"')[1] for part in labels.split(","))
                calls[f"{verb} {kind} {code}"] = int(float(value))
        return calls

    def passes(self) -> int:
        """How often it looked at a resource."""
        lines = self._metrics().splitlines()
        return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(PASSES)))

    def settle(self) -> None:
        """Return once it has had next to nothing to do for a while."""
        deadline, idle_since = time.monotonic() + SETTLED, time.monotonic()
        while time.monotonic() < deadline and time.monotonic() - idle_since < SETTLE:
            passes = self.passes()
            time.sleep(0.5)
            if self.passes() - passes > QUIET * 0.5:
                idle_since = time.monotonic()

    def usage(self) -> dict[str, float]:
        """Memory in MiB and processor seconds."""
        return {**memory_mib(self.pid), "cpuSeconds": round(processor_seconds(self.pid), 2)}

    def _metrics(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self._http_port, timeout=5)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        except OSError:
            return ""
        finally:
            connection.close()


@contextmanager
def running_operator(command: Sequence[str]) -> Iterator[Operator]:
    """Run the operator until the block ends; its log is shown when the block fails."""
    http_port, tls_port = free_port(), free_port()
    ports = ["--host=127.0.0.1", f"--http-port={http_port}", f"--tls-port={tls_port}"]
    with (
        tempfile.NamedTemporaryFile(prefix="operator-", suffix=".log") as log,
        subprocess.Popen([*command, *ports], stdout=log, stderr=log) as process,
    ):
        operator = Operator(process, http_port)
        try:
            deadline = time.monotonic() + PATIENCE
            while not operator.is_leading():
                if time.monotonic() > deadline:
                    raise RuntimeError("the operator does not lead")
                time.sleep(0.2)
            yield operator
        except RuntimeError:
            sys.stderr.write(Path(log.name).read_text()[-4000:])
            raise
        finally:
            process.terminate()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def prepare(api: Api, namespace: str) -> None:
    """CRDs and namespaces."""
    create_crds(api, ROOT / "crds")
    for name in (namespace, "tunesmith-system"):
        api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})


def create_crds(api: Api, folder: Path) -> None:
    """The CRDs of a folder."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for file in sorted(folder.glob("*.yaml")):
        api.call("POST", path, yaml.safe_load(file.read_text()))


@contextmanager
def watching(subject: Subject) -> Iterator[Bench]:
    """Watchers of the children, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    news: multiprocessing.Queue[tuple[str, str, float]] = context.Queue()
    ready = [context.Event() for _ in subject.children]
    watchers = [
        context.Process(target=watch_children, args=(path, subject.selector, news, event), daemon=True)
        for path, event in zip(subject.children, ready, strict=True)
    ]
    for watcher in watchers:
        watcher.start()
    for event in ready:
        event.wait(PATIENCE)
    try:
        yield Bench(news, "bench", subject)
    finally:
        for watcher in watchers:
            watcher.terminate()


def pids_of(cluster: Cluster) -> dict[str, int]:
    """The processes of a control plane by their names."""
    return {record.name: record.pid for record in cluster.processes.records()}


def measure(options: Options, cluster: Cluster) -> dict[str, Any]:
    """All measurements of the operator, on the cluster of ``KUBECONFIG``."""
    prepare(Api(load_connection()), "bench")
    with watching(FINE_TUNE_JOB) as bench, running_operator(options.command) as operator:
        before = operator.usage()
        pids = pids_of(cluster) | {"operator": operator.pid}
        result = {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "loadAverage": [round(load, 1) for load in os.getloadavg()],
            "idle": before,
            "floor": measure_floor(bench, options.one_by_one),
            "oneByOne": measure_one_by_one(bench, options.one_by_one),
            "atOnce": measure_at_once(bench, options.at_once, options.threads, pids, operator.settle),
        }
        return result | {
            "afterwards": operator.usage(),
            "passes": operator.passes(),
            "apiCalls": operator.calls(),
        }


def measure_kubeflow(options: Options, cluster: Cluster) -> dict[str, Any]:
    """The same of Kubeflow Trainer; its first child is a JobSet, and nobody makes Jobs of that here."""
    with kubeflow_trainer.running(Api(load_connection()), Path(cluster.kubeconfig)) as pid:
        subject = Subject(
            kubeflow_trainer.PATH, kubeflow_trainer.build_train_job, (kubeflow_trainer.JOB_SETS,)
        )
        pids = pids_of(cluster) | {"operator": pid}
        with watching(subject) as bench:
            return {
                "version": kubeflow_trainer.VERSION,
                "loadAverage": [round(load, 1) for load in os.getloadavg()],
                "oneByOne": _without_jobs(measure_one_by_one(bench, options.one_by_one)),
                "atOnce": _without_jobs(
                    measure_at_once(
                        bench, options.at_once, options.threads, pids, partial(time.sleep, SETTLE)
                    )
                ),
                "afterwards": memory_mib(pid),
            }


def read_options(arguments: Sequence[str]) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--one-by-one", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=500)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--command", nargs=argparse.REMAINDER, default=[sys.executable, "-m", "tunesmith"])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--kubeflow", action=argparse.BooleanOptionalAction, default=True)
    return Options(**vars(parser.parse_args(arguments)))


def _without_jobs(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if name not in {"firstJob", "jobsPerSecond"}}


def on_a_new_cluster(
    measured: Callable[[Options, Cluster], dict[str, Any]], options: Options
) -> dict[str, Any]:
    """Measure on a control plane of its own."""
    with tempfile.TemporaryDirectory(prefix="tunesmith-bench-") as state:
        cluster = Cluster(Shape.CONTROL_PLANE, Path(state) / "cluster", bound=True)
        cluster.up()
        try:
            os.environ["KUBECONFIG"] = str(cluster.kubeconfig)
            return measured(options, cluster)
        finally:
            cluster.down()


def main() -> int:
    """Measure; print and write the result."""
    options = read_options(sys.argv[1:])
    result = on_a_new_cluster(measure, options)
    if options.kubeflow:
        result["kubeflowTrainer"] = on_a_new_cluster(measure_kubeflow, options)
    text = json.dumps(result, indent=2) + "\n"
    print(text)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
