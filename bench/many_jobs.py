"""What ten thousand kept jobs cost the operator: memory, time and processor time of one more job, time to restart.

Starts a control plane with kwok's nodes and the operator of its own. Two jobs, one of them with an EvalRun, run to
their end through the operator. The kept jobs are copies of these two with all that belongs to them, each under names,
UIDs and digests of its own; they are written into etcd as the API server stores them, since ten thousand real runs
would take the API server hours. Each step adds kept jobs while no operator runs, starts one, and measures real jobs,
from apply to the end of their pods. The result is written after each step, and the run ends by itself when its time
is over.

    python bench/many_jobs.py --output bench/results/many-jobs.json
"""

import argparse
import base64
import contextlib
import hashlib
import http.client
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from control_plane.cluster_runs import Runs
from control_plane.operator_process import Process
from control_plane.restartable_operator import RestartableOperator
from control_plane.served_jobs import install_crds
from process_usage import memory_mib, processor_seconds, proportional_mib
from simulation.simulated_cluster import DIGEST, EVALUATION, fine_tune_job, success

from tunesmith.manifests.names import OWNER_UID_LABEL
from tunesmith.manifests.verdict_records import VERDICTS_OWNER
from tunesmith_cluster.api import ApiClient
from tunesmith_cluster.client import eventually
from tunesmith_cluster.cluster import Cluster, Shape
from tunesmith_cluster.fake import ControlPlane
from tunesmith_contract.report import ComparedSide, RunReport

Body = dict[str, Any]

STEPS = (100, 300, 1000, 3000, 10000)
ADAPTER_DEPLOYMENTS = 200
#: So many of them are created at a time.
GROUP = 20
PLAIN, JUDGED = "seed-plain", "seed-judged"
#: Where the API server keeps objects in etcd, by their kind.
FOLDERS = {
    "ConfigMap": "configmaps",
    "Job": "jobs",
    "Pod": "pods",
    "FineTuneJob": "tunesmith.dev/finetunejobs",
    "EvalRun": "tunesmith.dev/evalruns",
}
LISTS = {"ConfigMap": "api/v1", "Pod": "api/v1", "Job": "apis/batch/v1"}
#: Keeps the UIDs of the EvalRuns apart from those of their jobs in the six digits that names hold.
OF_EVAL_RUNS = 0x800000
LATEST = 0x7FFFFF
#: The longest wait for anything that is not a whole step, in seconds.
PATIENCE = 400.0
#: After the last job has ended, what the operator has put off follows within so many seconds.
SETTLE = 3.0
#: For so many seconds nobody asks for anything, to see what the operator does by itself.
IDLE = 20.0
#: Processor seconds in a second, below which the operator rests.
QUIET = 0.1
#: The control plane is calm once its processes have used less than this share of a core for so many seconds.
CALM_SHARE, CALM_SECONDS, CALM_PATIENCE = 0.25, 2.0, 60.0
#: Programs in Go collect garbage in earnest from here on; for those of test clusters memory is at hand.
GO_MEMORY = "9GiB"
#: Room for the pods of all AdapterDeployments.
ENDLESS = {"cpu": "100000", "memory": "1000Ti", "ephemeral-storage": "1000Ti", "pods": "100000"}
STAGES = ("prepare", "train", "evaluate")
#: The operator's metrics.
PASSES, CALLS, QUEUE = "tunesmith_reconciles_total", "tunesmith_api_calls_total", "tunesmith_queue_depth"
FIRST_CHILD = ("tunesmith_first_child_seconds_sum", "tunesmith_first_child_seconds_count")


class Etcd:
    """One connection to the etcd of a control plane, by its JSON gateway."""

    def __init__(self, cluster: Cluster) -> None:
        pid = next(record.pid for record in cluster.processes.records() if record.name == "kube-apiserver")
        flags = (Path("/proc") / str(pid) / "cmdline").read_text().split("\0")
        [address] = [flag.partition("//")[2] for flag in flags if flag.startswith("--etcd-servers=")]
        self._http = http.client.HTTPConnection(address, timeout=60)

    def put(self, entries: Sequence[tuple[str, str]]) -> None:
        """Write keys with their values, all at once."""
        puts = [{"requestPut": {"key": _encode(key), "value": _encode(value)}} for key, value in entries]
        self._http.request("POST", "/v3/kv/txn", json.dumps({"success": puts}))
        response = self._http.getresponse()
        text = response.read()
        if response.status != http.HTTPStatus.OK:
            raise RuntimeError(f"etcd: {response.status} {text[:500]!r}")


class Seed:
    """A job that has ended, with all that belongs to it, of which copies are made.

    Of its pods only the last one: Kubernetes removes those that have ended beyond 12,500 of a cluster.
    """

    def __init__(self, runs: Runs, name: str, judged: bool) -> None:
        job = runs.read("FineTuneJob", name)
        self._uids = [(job["metadata"]["uid"], 0)]
        objects = list(_children(runs, job["metadata"]["uid"]))
        last_stage = STAGES[2] if judged else STAGES[1]
        if judged:
            run = runs.read("EvalRun", name)
            self._uids.append((run["metadata"]["uid"], OF_EVAL_RUNS))
            kept = [
                body for body in _children(runs, VERDICTS_OWNER) if run["metadata"]["uid"] in body["data"]
            ]
            objects += [*_children(runs, run["metadata"]["uid"]), *kept, run]
        objects = [body for body in objects if body["kind"] != "Pod" or _stage_of(body) == last_stage]
        self._name = name
        self._texts = [(body["kind"], _stored(body)) for body in (*objects, job)]
        self._others = [body["metadata"]["uid"] for body in objects]

    def copy(self, number: int) -> Iterator[tuple[str, str]]:
        """Keys and values of the copy of a number; the job comes last, after what belongs to it."""
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        old_digest = DIGEST.removeprefix("sha256:")
        changes = [(old_digest, digest), (old_digest[:40], digest[:40]), (self._name, kept_name(number))]
        for uid, offset in self._uids:
            # All have ended in the same second, so that UIDs decide which ended last. It has to be the first ones: the
            # operator keeps the finished work of the latest 256, and would write it for each one that is later.
            prefix = f"{LATEST - number + offset:06x}"
            changes += [(uid, prefix + uid[6:]), (f"-{uid[:6]}", f"-{prefix}")]
        changes += [(uid, f"{number:06x}{uid[6:]}") for uid in self._others]
        for kind, text in self._texts:
            for old, new in changes:
                text = text.replace(old, new)
            metadata = json.loads(text)["metadata"]
            yield f"/registry/{FOLDERS[kind]}/{metadata['namespace']}/{metadata['name']}", text


def evaluated() -> RunReport:
    """The report of an evaluation of the artifact that each job makes, which passes."""
    report = success("evaluate")
    assert report.evaluation is not None
    compared = (ComparedSide(DIGEST), ComparedSide("r1"))
    return report.model_copy(
        update={"evaluation": report.evaluation.model_copy(update={"compared": compared})}
    )


def kept_name(number: int) -> str:
    """Name of a kept job."""
    return f"kept-{number:05d}"


def _children(runs: Runs, owner: str) -> Iterator[Body]:
    for kind, group in LISTS.items():
        path = (
            f"/{group}/namespaces/{runs.namespace}/{kind.lower()}s?labelSelector={OWNER_UID_LABEL}%3D{owner}"
        )
        listed = runs.server.api.get(path)
        for body in listed["items"]:
            yield {"apiVersion": listed["apiVersion"], "kind": kind, **body}


def _stage_of(body: Body) -> str:
    stage: str = body["metadata"]["labels"]["tunesmith.dev/stage"]
    return stage


def _stored(body: Body) -> str:
    metadata = {key: value for key, value in body["metadata"].items() if key != "resourceVersion"}
    return json.dumps({**body, "metadata": metadata}, separators=(",", ":"))


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Deadline:
    """When the whole run has to be over.

    Args:
        seconds: from now on.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left, at most ``PATIENCE``; for a single wait.

        Raises:
            TimeoutError: none are left.
        """
        self.check()
        return min(self._end - time.monotonic(), PATIENCE)

    def check(self) -> None:
        """Raise where no time is left.

        Raises:
            TimeoutError: none is left.
        """
        if time.monotonic() >= self._end:
            raise TimeoutError("the time for the whole run is over")


class FreshProcess:
    """``python -m tunesmith``, as its image starts it: with imports and memory of its own."""

    def __init__(self, kubeconfig: Path, log: Path, arguments: Sequence[str]) -> None:
        command = [sys.executable, "-P", "-m", "tunesmith", *arguments]
        with log.open("ab") as file:
            environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
            self._process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
        self.pid = self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def send(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int | None:
        """Wait for its end; the exit code, None if it has not ended in time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self.exit_code


class FreshOperator(RestartableOperator):
    """Each life is a new process."""

    def _start_process(self, arguments: list[str]) -> Process:
        return FreshProcess(self._kubeconfig, self._log, arguments)


class Installation:
    """The operator with its cluster, and the namespace of the jobs."""

    def __init__(
        self, cluster: Cluster, operator: RestartableOperator, runs: Runs, deadline: Deadline
    ) -> None:
        self.cluster = cluster
        self.operator = operator
        self.runs = runs
        self.deadline = deadline
        self._text = ""

    def live(self, names: Sequence[str]) -> None:
        """Let these jobs run to their end, every second one with an EvalRun."""
        judged, wait = names[1::2], self.runs.wait
        with ThreadPoolExecutor(4) as pool:
            jobs = [*pool.map(lambda name: self.create(name, name in judged), names)]
            for stage in STAGES[:2]:
                [*pool.map(lambda job, stage=stage: self.runs.finish(job, stage, 1, 0, success(stage)), jobs)]
            [*pool.map(lambda name: wait("FineTuneJob", name, "Succeeded", self.deadline.left), names)]
            judging = [*pool.map(lambda name: self.runs.read("EvalRun", name), judged)]
            [*pool.map(lambda run: self.runs.finish(run, "evaluate", 1, 0, evaluated()), judging)]
            [*pool.map(lambda name: wait("EvalRun", name, "Succeeded", self.deadline.left), judged)]

    def create(self, name: str, judged: bool) -> Body:
        """Make a job of CPU pods."""
        more = {"evaluation": EVALUATION} if judged else {}
        return self.runs.create(fine_tune_job(compute={"gpusPerNode": 0}, **more), name)

    def figures(self) -> dict[str, float]:
        """The operator's metrics, summed over their labels.

        Raises:
            RuntimeError: it has ended.
        """
        # On a busy machine a request may get no answer in time.
        eventually(lambda: self.operator.has_ended or self._read(), self.deadline.left, what="metrics")
        if self.operator.has_ended:
            raise RuntimeError("the operator has ended")
        text = self._text
        sums: dict[str, float] = {}
        for line in text.splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = name.partition("{")[0]
                sums[name] = sums.get(name, 0.0) + float(value)
        return sums

    def _read(self) -> bool:
        self._text = self.operator.metrics
        return bool(self._text)

    def wait_for_passes(self) -> float:
        """Wait for the first pass of a new operator; returns the seconds that it took."""
        began = time.monotonic()
        eventually(lambda: self.figures().get(PASSES), self.deadline.left, what="the first pass")
        return time.monotonic() - began

    def wait_for_empty_queue(self) -> float:
        """Wait until no resource waits for a worker; returns the seconds that it took."""
        began = time.monotonic()
        eventually(lambda: self.figures()[QUEUE] == 0, self.deadline.left, what="an empty queue")
        return time.monotonic() - began

    def wait_until_quiet(self) -> None:
        """Wait until kopf, too, has gone through its lists."""
        used = processor_seconds(self.operator.pid)
        while not self.operator.has_ended:
            self.deadline.check()
            time.sleep(1.0)
            before, used = used, processor_seconds(self.operator.pid)
            if used - before < QUIET:
                return

    def measure_idle(self) -> Body:
        """What the operator does while nobody asks for anything."""
        self.wait_until_quiet()
        before, used, began = self.figures(), processor_seconds(self.operator.pid), time.monotonic()
        time.sleep(IDLE)
        seconds = time.monotonic() - began
        spent, after = processor_seconds(self.operator.pid) - used, self.figures()
        return {
            "passesPerSecond": round((after[PASSES] - before[PASSES]) / seconds, 2),
            "callsPerSecond": round((after[CALLS] - before[CALLS]) / seconds, 2),
            "processorMsPerSecond": round(1000 * spent / seconds, 1),
        }

    def measure_jobs(self, names: Sequence[str], idle: float) -> Body:
        """Cost of so many more jobs, whose pods end at once.

        Args:
            idle: processor milliseconds a second that the operator uses anyway; they are left out.
        """
        before, used, began = self.figures(), processor_seconds(self.operator.pid), time.monotonic()
        self.live(names)
        seconds = time.monotonic() - began
        time.sleep(SETTLE)
        spent = processor_seconds(self.operator.pid) - used
        spent -= idle / 1000 * (time.monotonic() - began)
        after = self.figures()
        new = {key: after.get(key, 0.0) - before.get(key, 0.0) for key in (*FIRST_CHILD, CALLS)}
        child_seconds, children = (new[key] for key in FIRST_CHILD)
        return {
            "processorMsPerJob": round(1000 * spent / len(names), 1),
            "secondsPerJob": round(seconds / len(names), 2),
            "callsPerJob": round(new[CALLS] / len(names), 1),
            "firstChildMs": round(1000 * child_seconds / max(1.0, children), 1),
        }

    def serve(self, count: int) -> None:
        """Create so many AdapterDeployments, a few at a time."""
        for number in range(count):
            create_adapter_deployment(self.runs, number)
            if number % GROUP == GROUP - 1:
                time.sleep(1.0)
                self.wait_for_empty_queue()

    def measure_start(self) -> Body:
        """Time until a new process has all in memory and begins to work, and until it has looked at each resource."""
        began = time.monotonic()
        self.operator.start()
        self.wait_for_passes()
        ready = time.monotonic() - began
        pid = self.operator.pid
        figures = {
            "readySeconds": round(ready, 1),
            "readyProcessorSeconds": round(processor_seconds(pid), 1),
            "readyMiB": memory_mib(pid)["residentMiB"],
        }
        self.wait_for_empty_queue()
        return {
            **figures,
            "caughtUpSeconds": round(time.monotonic() - began, 1),
            "processorSeconds": round(processor_seconds(pid), 1),
            **memory_mib(pid),
        }

    def wait_for_calm_cluster(self) -> None:
        """Wait until the control plane has taken note of what was written, or for a minute."""
        pids = [record.pid for record in self.cluster.processes.records()]
        end = time.monotonic() + min(CALM_PATIENCE, self.deadline.left)
        while time.monotonic() < end:
            used = sum(map(processor_seconds, pids))
            time.sleep(CALM_SECONDS)
            if sum(map(processor_seconds, pids)) - used < CALM_SHARE * CALM_SECONDS:
                return

    def cluster_memory(self) -> dict[str, float]:
        """Resident MiB of the processes of the control plane."""
        records = self.cluster.processes.records()
        return {record.name: memory_mib(record.pid)["residentMiB"] for record in records}


def create_adapter_deployment(runs: Runs, number: int) -> None:
    """An AdapterDeployment that waits for a verdict on a kept job's artifact; its pod runs on kwok's node.

    Without an agent it would ask again and again whether it has loaded an artifact.
    """
    spec = {
        "baseModel": {"uri": "pvc://models/tiny"},
        "engine": {"gpus": 0},
        "artifactVolumes": [{"claim": "artifacts"}],
        "adapters": [{"name": "expenses", "source": {"fineTuneJobRef": {"name": kept_name(2 * number)}}}],
    }
    body = {"apiVersion": "tunesmith.dev/v1alpha1", "kind": "AdapterDeployment", "spec": spec}
    path = f"/apis/tunesmith.dev/v1alpha1/namespaces/{runs.namespace}/adapterdeployments"
    runs.server.api.create(path, body | {"metadata": {"name": f"serving-{number:03d}"}})


class Measurement:
    """All steps, one after the other.

    Args:
        report: receives the result so far after each step.
    """

    def __init__(self, options: argparse.Namespace, report: Callable[[Body], None]) -> None:
        self._options = options
        self._report = report
        self.result: Body = {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "loadAverage": [round(load, 1) for load in os.getloadavg()],
            "adapterDeployments": options.deployments,
            "jobsPerStep": options.jobs,
            "steps": [],
        }

    def run(self, cluster: Cluster, folder: Path, deadline: Deadline) -> None:
        """Measure, step by step, until all are done.

        Raises:
            TimeoutError: something took too long.
            RuntimeError: the operator has ended.
        """
        server = ControlPlane(cluster.kubeconfig)
        server.api = ApiClient(cluster.kubeconfig, timeout=PATIENCE)
        install_crds(server)
        # All volumes are on this node, and so are all pods.
        server.add_node("gpu-0", resources=ENDLESS)
        runs = Runs(server, folder, patience=PATIENCE)
        with FreshOperator(server, folder, "") as operator:
            installation = Installation(cluster, operator, runs, deadline)
            installation.live((PLAIN, JUDGED))
            seeds = [Seed(runs, PLAIN, judged=False), Seed(runs, JUDGED, judged=True)]
            etcd, kept = Etcd(cluster), 0
            for step in self._options.steps:
                # Nobody watches meanwhile: the operator finds them all at its start.
                operator.stop()
                keep(etcd, seeds, range(kept, step), deadline)
                installation.wait_for_calm_cluster()
                self.result["steps"].append(self._step(installation, kept, step))
                kept = step
                self._report(self.result)

    def _step(self, installation: Installation, before: int, kept: int) -> Body:
        began, deployments = time.monotonic(), self._options.deployments
        restart = installation.measure_start()
        if before < 2 * deployments <= kept:
            installation.serve(deployments)
        idle = installation.measure_idle()
        names = [f"more-{kept}-{number}" for number in range(self._options.jobs)]
        return {
            "jobs": kept,
            "restart": restart,
            "idle": idle,
            **installation.measure_jobs(names, idle["processorMsPerSecond"]),
            "memory": memory_mib(installation.operator.pid),
            "shareMiB": proportional_mib(installation.operator.pid),
            "clusterMiB": installation.cluster_memory(),
            "stepSeconds": round(time.monotonic() - began),
            "loadAverage": round(os.getloadavg()[0], 1),
        }


def keep(etcd: Etcd, seeds: Sequence[Seed], numbers: range, deadline: Deadline) -> None:
    """Write kept jobs of these numbers, one at a time."""
    began = time.monotonic()
    for number in numbers:
        etcd.put([*seeds[number % 2].copy(number)])
        if number % 1000 == 999:
            deadline.check()
            print(f"{number + 1} jobs are kept", flush=True)
    print(f"{len(numbers)} more kept jobs within {time.monotonic() - began:.0f} s", flush=True)


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--deployments", type=int, default=ADAPTER_DEPLOYMENTS)
    parser.add_argument("--jobs", type=int, default=20, help="real jobs that each step measures")
    parser.add_argument("--minutes", type=float, default=20.0, help="the run ends by itself after so long")
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def main() -> int:
    """Measure on a control plane of its own; print and write the result after each step."""
    options = read_options()
    deadline = Deadline(60 * options.minutes)

    def report(result: Body) -> None:
        print(json.dumps(result["steps"][-1]), flush=True)
        if options.output:
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps(result, indent=2) + "\n")

    os.environ.setdefault("GOMEMLIMIT", GO_MEMORY)
    measurement = Measurement(options, report)
    with tempfile.TemporaryDirectory(prefix="tunesmith-bench-") as state:
        cluster = Cluster(Shape.CONTROL_PLANE, Path(state) / "cluster", bound=True)
        folder = Path(state) / "operator"
        folder.mkdir()
        cluster.up()
        try:
            measurement.run(cluster, folder, deadline)
        except Exception:
            done, log = len(measurement.result["steps"]), folder / "operator.log"
            sys.stderr.write(log.read_text()[-6000:] if log.exists() else "")
            sys.stderr.write(f"{done} of {len(options.steps)} steps were measured\n")
            raise
        finally:
            cluster.down()
    return 0


if __name__ == "__main__":
    sys.exit(main())
