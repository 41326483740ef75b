"""What ten thousand kept jobs cost the operator: memory, time and processor time of one more job, time to restart.

Starts a control plane with kwok's nodes and the operator of its own. Two jobs, one of them with an EvalRun, run to
their end through the operator. The kept jobs are copies of these two with all that belongs to them, each under names,
UIDs and digests of its own; they are written into etcd as the API server stores them, since ten thousand real runs
would take the API server hours. Each step measures real jobs, from apply to the end of their pods.

    python bench/many_jobs.py --output bench/results/many-jobs.json
"""

import argparse
import base64
import hashlib
import http.client
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from control_plane.cluster_runs import Runs
from control_plane.restartable_operator import RestartableOperator
from control_plane.served_jobs import install_crds
from process_usage import memory_mib, processor_seconds
from simulation.simulated_cluster import DIGEST, EVALUATION, fine_tune_job, success

from tunesmith.manifests.names import OWNER_UID_LABEL
from tunesmith.manifests.verdict_records import VERDICTS_OWNER
from tunesmith_cluster.api import ApiClient
from tunesmith_cluster.cluster import Cluster, Shape
from tunesmith_cluster.fake import ControlPlane
from tunesmith_contract.report import ComparedSide, RunReport

Body = dict[str, Any]

STEPS = (100, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000, 10000)
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
#: The operator is calm once it has used less than this share of a core for a while.
CALM_SHARE, CALM_SECONDS, PATIENCE = 0.06, 2.0, 240.0
STAGES = ("prepare", "train", "evaluate")


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
            prefix = f"{number + offset:06x}"
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


class Installation:
    """The operator with its cluster, and the namespace of the jobs."""

    def __init__(self, cluster: Cluster, operator: RestartableOperator, runs: Runs) -> None:
        self.cluster = cluster
        self.operator = operator
        self.runs = runs

    def live(self, names: Sequence[str]) -> None:
        """Let these jobs run to their end, every second one with an EvalRun."""
        judged = names[1::2]
        with ThreadPoolExecutor(4) as pool:
            jobs = [*pool.map(lambda name: self.create(name, name in judged), names)]
            for stage in STAGES[:2]:
                [*pool.map(lambda job, stage=stage: self.runs.finish(job, stage, 1, 0, success(stage)), jobs)]
            [*pool.map(lambda name: self.runs.wait("FineTuneJob", name, "Succeeded", PATIENCE), names)]
            judging = [*pool.map(lambda name: self.runs.read("EvalRun", name), judged)]
            [*pool.map(lambda run: self.runs.finish(run, "evaluate", 1, 0, evaluated()), judging)]
            [*pool.map(lambda name: self.runs.wait("EvalRun", name, "Succeeded", PATIENCE), judged)]

    def create(self, name: str, judged: bool) -> Body:
        """Make a job of CPU pods."""
        more = {"evaluation": EVALUATION} if judged else {}
        return self.runs.create(fine_tune_job(compute={"gpusPerNode": 0}, **more), name)

    def calm_down(self) -> float:
        """Wait until the operator has nothing to do; returns the seconds until it began to have nothing."""
        began, pid = time.monotonic(), self.operator.pid
        while True:
            used, since = processor_seconds(pid), time.monotonic()
            time.sleep(CALM_SECONDS)
            if processor_seconds(pid) - used < CALM_SHARE * CALM_SECONDS:
                return since - began
            if time.monotonic() - began > PATIENCE:
                raise RuntimeError("the operator does not come to rest")

    def first_children(self) -> tuple[float, float]:
        """Seconds from the first event of all new jobs so far to their first children, and the number of jobs."""
        lines = self.operator.metrics.splitlines()
        values = dict(
            line.rsplit(" ", 1) for line in lines if line.startswith("tunesmith_first_child_seconds")
        )
        label = '{kind="FineTuneJob"}'
        return tuple(
            float(values.get(f"tunesmith_first_child_seconds_{part}{label}", 0)) for part in ("sum", "count")
        )  # type: ignore[return-value]

    def measure_jobs(self, names: Sequence[str]) -> Body:
        """Cost of so many more jobs, whose pods end at once."""
        self.calm_down()
        pid = self.operator.pid
        used, before = processor_seconds(pid), self.first_children()
        began = time.monotonic()
        self.live(names)
        seconds = time.monotonic() - began
        self.calm_down()
        after = self.first_children()
        spent = processor_seconds(pid) - used
        return {
            "processorMsPerJob": round(1000 * spent / len(names), 1),
            "secondsPerJob": round(seconds / len(names), 2),
            "firstChildMs": round(1000 * (after[0] - before[0]) / max(1, after[1] - before[1]), 1),
        }

    def serve(self, count: int) -> None:
        """Create so many AdapterDeployments, a few at a time."""
        for number in range(count):
            create_adapter_deployment(self.runs, number)
            if number % GROUP == GROUP - 1:
                self.calm_down()

    def measure_start(self) -> Body:
        """Time until a new process leads and has all in memory, and until it has looked at each resource."""
        began = time.monotonic()
        self.operator.start()
        ready = time.monotonic() - began
        memory = memory_mib(self.operator.pid)
        caught_up = self.calm_down()
        return {
            "readySeconds": round(ready, 1),
            "readyMiB": memory["residentMiB"],
            "caughtUpSeconds": round(ready + caught_up, 1),
            "processorSeconds": round(processor_seconds(self.operator.pid), 1),
            **memory_mib(self.operator.pid),
        }


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


def measure(
    cluster: Cluster,
    folder: Path,
    steps: Sequence[int],
    deployments: int,
    jobs: int,
    report: Callable[[Body], None],
) -> Body:
    """All steps."""
    server = ControlPlane(cluster.kubeconfig)
    server.api = ApiClient(cluster.kubeconfig, timeout=PATIENCE)
    install_crds(server)
    for number in range(2):
        server.add_node(f"gpu-{number}")
    runs = Runs(server, folder)
    result: Body = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "loadAverage": [round(load, 1) for load in os.getloadavg()],
        "adapterDeployments": deployments,
        "jobsPerStep": jobs,
        "steps": [],
    }
    with RestartableOperator(server, folder, "") as operator:
        installation = Installation(cluster, operator, runs)
        installation.live((PLAIN, JUDGED))
        seeds = [Seed(runs, PLAIN, judged=False), Seed(runs, JUDGED, judged=True)]
        etcd, kept = Etcd(cluster), 0
        for step in steps:
            # Nobody watches meanwhile: the operator finds them all at its start.
            operator.stop()
            for number in range(kept, step):
                etcd.put([*seeds[number % 2].copy(number)])
            restart = installation.measure_start()
            if kept < 2 * deployments <= step:
                installation.serve(deployments)
            kept = step
            figures: Body = {"jobs": kept, "restart": restart}
            figures |= installation.measure_jobs([f"more-{step}-{number}" for number in range(jobs)])
            figures["memory"] = memory_mib(operator.pid)
            figures["loadAverage"] = round(os.getloadavg()[0], 1)
            report(figures)
            result["steps"].append(figures)
    return result


def main() -> int:
    """Measure on a control plane of its own; print and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--deployments", type=int, default=ADAPTER_DEPLOYMENTS)
    parser.add_argument("--jobs", type=int, default=10, help="real jobs that each step measures")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()

    def report(figures: Body) -> None:
        print(json.dumps(figures), flush=True)

    with tempfile.TemporaryDirectory(prefix="tunesmith-bench-") as state:
        cluster = Cluster(Shape.CONTROL_PLANE, Path(state) / "cluster", bound=True)
        folder = Path(state) / "operator"
        folder.mkdir()
        cluster.up()
        try:
            result = measure(cluster, folder, options.steps, options.deployments, options.jobs, report)
        except Exception:
            sys.stderr.write((folder / "operator.log").read_text()[-6000:])
            raise
        finally:
            cluster.down()
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
