"""Kubeflow Trainer's controller on a control plane, for benchmarks beside it: with its webhooks' certificate, and
without the webhooks themselves, which a control plane without a network for pods could not reach.
"""

import base64
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import yaml

from tunesmith_cluster.binaries import program

VERSION = "v2.0.0"
JOB_SET_VERSION = "v0.8.2"
PATH = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/{}/trainjobs"
JOB_SETS = "/apis/jobset.x-k8s.io/v1alpha2/jobsets"
RUNTIME = "torch-distributed"
NAMESPACE, SECRET = "kubeflow-system", "kubeflow-trainer-webhook-cert"
WEBHOOKS = "validator.trainer.kubeflow.org"
#: Where the controller looks for its certificate: Kubernetes mounts the Secret there.
CERTIFICATES = Path("/tmp/k8s-webhook-server/serving-certs")
PATIENCE = 60.0


class Api(Protocol):
    """Requests to the API server."""

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]: ...


def build_train_job(name: str, namespace: str) -> dict[str, Any]:
    """A TrainJob as its documentation shows it."""
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"runtimeRef": {"name": RUNTIME}, "trainer": {"numNodes": 1, "image": "trainer:1"}},
    }


@contextmanager
def running(api: Api, kubeconfig: Path) -> Iterator[int]:
    """The controller, with its CRDs and the runtime for torch; its process, until the block ends.

    Raises:
        RuntimeError: it makes no certificate, or no JobSet.
    """
    modules = Path(subprocess.check_output(["go", "env", "GOMODCACHE"], text=True).strip())
    trainer = modules / f"github.com/kubeflow/trainer/v2@{VERSION}/manifests/base"
    job_set = modules / f"sigs.k8s.io/jobset@{JOB_SET_VERSION}/config/components/crd/bases"
    command = [
        program("trainer-controller-manager"),
        "--health-probe-bind-address=0",
        "--zap-log-level=error",
    ]
    for file in (*sorted((trainer / "crds").glob("*_*.yaml")), *sorted(job_set.glob("*.yaml"))):
        _create(
            api, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", yaml.safe_load(file.read_text())
        )
    for namespace in ("bench", NAMESPACE):
        _create(api, "/api/v1/namespaces", {"metadata": {"name": namespace}})
    _create(api, f"/api/v1/namespaces/{NAMESPACE}/secrets", {"metadata": {"name": SECRET}})
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    _create(api, path, {"metadata": {"name": WEBHOOKS}, "webhooks": []})
    runtimes = "/apis/trainer.kubeflow.org/v1alpha1/clustertrainingruntimes"
    _create(api, runtimes, yaml.safe_load((trainer / "runtimes/torch_distributed.yaml").read_text()))
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    process = subprocess.Popen(command, env=environment)
    try:
        _mount_certificate(api)
        _create(api, PATH.format("bench"), build_train_job("first", "bench"))
        deadline = time.monotonic() + PATIENCE
        while not _has_job_set(api):
            if time.monotonic() > deadline:
                raise RuntimeError("Kubeflow Trainer makes no JobSet")
            if process.poll() is not None:
                # With its first certificate it ends, for kubelet to start it anew.
                process = subprocess.Popen(command, env=environment)
            time.sleep(0.2)
        yield process.pid
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _create(api: Api, path: str, body: dict[str, Any]) -> None:
    """Create an object, once its kind is served."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            api.call("POST", path, body)
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return


def _mount_certificate(api: Api) -> None:
    """Write the certificate that the controller made to where a kubelet would mount it."""
    deadline = time.monotonic() + PATIENCE
    while not (data := api.call("GET", f"/api/v1/namespaces/{NAMESPACE}/secrets/{SECRET}").get("data")):
        if time.monotonic() > deadline:
            raise RuntimeError("Kubeflow Trainer makes no certificate")
        time.sleep(0.2)
    CERTIFICATES.mkdir(parents=True, exist_ok=True)
    for name, text in data.items():
        (CERTIFICATES / name).write_bytes(base64.b64decode(text))


def _has_job_set(api: Api) -> bool:
    try:
        return bool(api.call("GET", JOB_SETS)["items"])
    except RuntimeError:
        # A new kind is served a moment later.
        return False
