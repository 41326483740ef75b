"""Kueue itself beside a control plane: its CRDs, its webhooks, its manager as a process, and a queue."""

import base64
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import yaml

from tunesmith_cluster.binaries import kueue_manifests, program
from tunesmith_cluster.certificates import Authority
from tunesmith_cluster.client import eventually
from tunesmith_cluster.controlplane import LOOPBACK, free_ports
from tunesmith_cluster.fake import ControlPlane

from .served_jobs import wait_established

Body = dict[str, Any]

#: Groups whose webhooks are installed: those of kinds that the control plane serves and the operator makes.
GROUPS = {"batch", "kueue.x-k8s.io"}
METRICS_CERTIFICATES = "/etc/kueue/metrics/certs"
VERSION = "kueue.x-k8s.io/v1beta2"
QUEUE = "gpus"
#: What pods ask for; Kueue admits no pod with a resource that no group of its queue covers.
COVERED = ("cpu", "memory", "ephemeral-storage", "nvidia.com/gpu")


@contextmanager
def running_kueue(server: ControlPlane, folder: Path) -> Iterator[None]:
    """Kueue's manager with its CRDs and webhooks, until the end of the block."""
    webhook, health, metrics = free_ports(3)
    authority = Authority(folder / "pki")
    authority.issue("tls", "kueue", hosts=[LOOPBACK])
    config = folder / "kueue.yaml"
    config.write_text(yaml.safe_dump(_configuration(folder / "pki", webhook, health, metrics)))
    crds = [_with_one_version(crd) for crd in kueue_manifests("crd/bases")]
    # Another test has a stand-in for one of them.
    names = [crd["metadata"]["name"] for crd in crds]
    server.kubectl("delete", "crd", "--ignore-not-found", *names)
    for crd in crds:
        # They are larger than an annotation of kubectl apply may be.
        server.api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
    for name in names:
        wait_established(server, name)
    command = [program("setpriv"), "--pdeathsig", "KILL", "--", *_with_certificates(folder / "pki")]
    command += [program("kueue"), f"--config={config}", "--feature-gates=VisibilityOnDemand=false"]
    with (folder / "kueue.log").open("w") as log:
        environment = {**os.environ, "KUBECONFIG": str(server.kubeconfig)}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    hooks = [_reached_at(each, webhook, authority) for each in kueue_manifests("webhook/manifests.yaml")]
    try:
        eventually(lambda: _is_ready(health), 60, what=f"Kueue, see {folder / 'kueue.log'}")
        server.apply(hooks)
        yield
    finally:
        for each in hooks:
            server.kubectl("delete", each["kind"], each["metadata"]["name"], "--ignore-not-found")
        process.send_signal(signal.SIGKILL)
        process.wait()
        server.kubectl("delete", "crd", "--wait=false", *names)


def add_queue(server: ControlPlane, namespace: str, gpus: int) -> None:
    """A queue for a namespace, with a quota of GPUs and no bound on anything else."""
    quotas = [{"name": name, "nominalQuota": str(gpus) if "gpu" in name else "10Ti"} for name in COVERED]
    quotas[0]["nominalQuota"] = "10k"
    name = f"{namespace}-{QUEUE}"
    server.apply(
        [
            {"apiVersion": VERSION, "kind": "ResourceFlavor", "metadata": {"name": "any"}},
            {
                "apiVersion": VERSION,
                "kind": "ClusterQueue",
                "metadata": {"name": name},
                "spec": {
                    "namespaceSelector": {},
                    "preemption": {"withinClusterQueue": "LowerPriority"},
                    "resourceGroups": [
                        {"coveredResources": list(COVERED), "flavors": [{"name": "any", "resources": quotas}]}
                    ],
                },
            },
            *(
                {
                    "apiVersion": VERSION,
                    "kind": "WorkloadPriorityClass",
                    "metadata": {"name": priority},
                    "value": value,
                }
                for priority, value in (("low", 1), ("high", 1000))
            ),
            {
                "apiVersion": VERSION,
                "kind": "LocalQueue",
                "metadata": {"name": QUEUE, "namespace": namespace},
                "spec": {"clusterQueue": name},
            },
        ]
    )


def _with_certificates(folder: Path) -> list[str]:
    """Command that runs another one with these certificates where Kueue, and no setting, wants those of its metrics."""
    script = f"mount -t tmpfs none /etc && mkdir -p {METRICS_CERTIFICATES} && "
    script += f'cp {folder}/tls.crt {folder}/tls.key {METRICS_CERTIFICATES} && exec "$@"'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "kueue"]


def _configuration(certificates: Path, webhook: int, health: int, metrics: int) -> Body:
    return {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "health": {"healthProbeBindAddress": f"{LOOPBACK}:{health}"},
        "metrics": {"bindAddress": f"{LOOPBACK}:{metrics}"},
        "webhook": {"host": LOOPBACK, "port": webhook, "certDir": str(certificates)},
        "internalCertManagement": {"enable": False},
        "leaderElection": {"leaderElect": False},
        "integrations": {"frameworks": ["batch/job"]},
    }


def _with_one_version(crd: Body) -> Body:
    """The CRD with its stored version alone, so that nothing has to be converted."""
    stored = [version for version in crd["spec"]["versions"] if version["storage"]]
    return {**crd, "spec": {**crd["spec"], "versions": stored}}


def _reached_at(configuration: Body, port: int, authority: Authority) -> Body:
    """The webhooks of served kinds, at the port of the process instead of a Service."""
    bundle = base64.b64encode(Path(authority.path("ca")).read_bytes()).decode()
    hooks = []
    for hook in configuration["webhooks"]:
        if all(set(rule["apiGroups"]) <= GROUPS for rule in hook["rules"]):
            path = hook["clientConfig"]["service"]["path"]
            config = {"url": f"https://{LOOPBACK}:{port}{path}", "caBundle": bundle}
            hooks.append({**hook, "clientConfig": config})
    name = f"kueue-{configuration['kind'].lower().removesuffix('webhookconfiguration')}"
    return {**configuration, "metadata": {"name": name}, "webhooks": hooks}


def _is_ready(port: int) -> bool:
    with suppress(URLError, OSError), urlopen(f"http://{LOOPBACK}:{port}/readyz", timeout=2) as answer:
        return bool(answer.status == 200)
    return False
