"""How fast a FineTuneJob gets its first child: one at a time, and many at once; and the operator's memory.

Starts a control plane and the operator of its own, and measures from before the request that creates the resource to
the moment at which a watcher in another process has the first child's event.

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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kopf
import yaml

from tunesmith_cluster.cluster import Cluster, Shape

ROOT = Path(__file__).resolve().parent.parent
GROUP = "/apis/tunesmith.dev/v1alpha1"
OWNER = "tunesmith.dev/owner-name"
CHILDREN = ("/api/v1/configmaps", "/apis/batch/v1/jobs")
PATIENCE = 60.0
#: Between two resources that come one at a time: the pods of the one before are made and looked at by others.
PAUSE = 0.1

Seen = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Options:
    """What to measure."""

    one_by_one: int
    at_once: int
    threads: int
    command: list[str]
    output: Path | None


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


def watch_children(path: str, news: "multiprocessing.Queue[tuple[str, str, float]]", ready: Event) -> None:
    """Send the owner's name, the kind's path and the time of every new child; runs in a process of its own."""
    api = Api(load_connection())
    version = api.call("GET", f"{path}?labelSelector={OWNER}")["metadata"]["resourceVersion"]
    stream = api.open("GET", f"{path}?labelSelector={OWNER}&watch=true&resourceVersion={version}")
    ready.set()
    for line in stream:
        now = time.monotonic()
        event = json.loads(line)
        if event["type"] == "ADDED":
            news.put((event["object"]["metadata"]["labels"][OWNER], path, now))


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


class Bench:
    """Creates resources, and collects when their children were seen."""

    def __init__(self, news: "multiprocessing.Queue[tuple[str, str, float]]", namespace: str) -> None:
        self._news = news
        self.namespace = namespace
        self._seen: Seen = {}

    def create(self, api: Api, name: str) -> float:
        """Create one FineTuneJob; returns the time before the request."""
        started = time.monotonic()
        api.call("POST", f"{GROUP}/namespaces/{self.namespace}/finetunejobs", build_job(name, self.namespace))
        return started

    def wait(self, names: Sequence[str], kinds: int = len(CHILDREN)) -> None:
        """Wait until each of these has children of so many kinds."""
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

    def job(self, name: str) -> float:
        """When the first Job was seen."""
        return self._seen[name]["/apis/batch/v1/jobs"]


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
        job.append(1000 * (bench.job(name) - started))
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


def measure_at_once(bench: Bench, count: int, threads: int) -> dict[str, Any]:
    """Children per second, from the first request to the last first child."""
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
    begin = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    created = time.monotonic()
    bench.wait(list(started))
    end = max(bench.first(name) for name in started)
    last_job = max(bench.job(name) for name in started)
    return {
        "objects": count,
        "threads": threads,
        "createdPerSecond": round(count / (created - begin), 1),
        "childrenPerSecond": round(count / (end - begin), 1),
        "jobsPerSecond": round(count / (last_job - begin), 1),
        "firstChild": describe([1000 * (bench.first(name) - at) for name, at in started.items()]),
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

    def usage(self) -> dict[str, float]:
        """Memory in MiB and processor seconds."""
        folder = Path("/proc") / str(self._process.pid)
        fields = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        times = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        ticks = os.sysconf("SC_CLK_TCK")
        return {
            "residentMiB": round(int(fields["VmRSS"].split()[0]) / 1024, 1),
            "peakMiB": round(int(fields["VmHWM"].split()[0]) / 1024, 1),
            "cpuSeconds": round((int(times[11]) + int(times[12])) / ticks, 2),
        }

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
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        api.call(
            "POST",
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            yaml.safe_load(path.read_text()),
        )
    for name in (namespace, "tunesmith-system"):
        api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})


def measure(options: Options) -> dict[str, Any]:
    """All measurements, on the cluster of ``KUBECONFIG``."""
    prepare(Api(load_connection()), "bench")
    context = multiprocessing.get_context("spawn")
    news: multiprocessing.Queue[tuple[str, str, float]] = context.Queue()
    ready = [context.Event() for _ in CHILDREN]
    watchers = [
        context.Process(target=watch_children, args=(path, news, event), daemon=True)
        for path, event in zip(CHILDREN, ready, strict=True)
    ]
    for watcher in watchers:
        watcher.start()
    for event in ready:
        event.wait(PATIENCE)
    bench = Bench(news, "bench")
    try:
        with running_operator(options.command) as operator:
            before = operator.usage()
            result = {
                "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
                "loadAverage": [round(load, 1) for load in os.getloadavg()],
                "idle": before,
                "floor": measure_floor(bench, options.one_by_one),
                "oneByOne": measure_one_by_one(bench, options.one_by_one),
                "atOnce": measure_at_once(bench, options.at_once, options.threads),
            }
            return result | {"afterwards": operator.usage(), "apiCalls": operator.calls()}
    finally:
        for watcher in watchers:
            watcher.terminate()


def read_options(arguments: Sequence[str]) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--one-by-one", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=500)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--command", nargs="+", default=[sys.executable, "-m", "tunesmith"])
    parser.add_argument("--output", type=Path)
    return Options(**vars(parser.parse_args(arguments)))


def main() -> int:
    """Measure on a control plane of its own; print and write the result."""
    options = read_options(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="tunesmith-bench-") as state:
        cluster = Cluster(Shape.CONTROL_PLANE, Path(state) / "cluster", bound=True)
        cluster.up()
        try:
            os.environ["KUBECONFIG"] = str(cluster.kubeconfig)
            result = measure(options)
        finally:
            cluster.down()
    text = json.dumps(result, indent=2) + "\n"
    print(text)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
