"""Control plane processes (etcd, API server, controllers, scheduler, kwok) and their readiness checks."""

import http.client
import random
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from pathlib import Path

from tunesmith_cluster.api import ApiClient, ApiError
from tunesmith_cluster.binaries import program
from tunesmith_cluster.certificates import Authority
from tunesmith_cluster.errors import ClusterError
from tunesmith_cluster.processes import ProcessTable
from tunesmith_cluster.report import stage

LOOPBACK = "127.0.0.1"
SERVICE_RANGE = "10.96.0.0/16"
FIRST_SERVICE_ADDRESS = "10.96.0.1"
LOOPBACK_IPV6 = "::1"
SERVICE_RANGE_IPV6 = "fd00:10:96::/112"
FIRST_SERVICE_ADDRESS_IPV6 = "fd00:10:96::1"
# Below the kernel's range for outgoing connections, so that nobody takes a port between look and use.
PORTS = range(15000, 32000)
PROGRAMS = ("etcd", "kube-apiserver", "kubectl", "kwok", "setpriv")
START_TIMEOUT = 60.0
#: For programs in Go: a sixth of an API server's processor time went into garbage, and memory is at hand.
GARBAGE_COLLECTION = {"GOGC": "300"}
CONTROLLERS = {
    "kube-controller-manager": "system:kube-controller-manager",
    "kube-scheduler": "system:kube-scheduler",
}
ADMINISTRATORS = "system:masters"


class IPFamilies(StrEnum):
    """Families of the addresses of Services; the first one is that of the API server. Fake pods have IPv4."""

    IPV4 = "IPv4"
    IPV6 = "IPv6"
    DUAL = "IPv4,IPv6"


@dataclass(frozen=True)
class Setting:
    """Settings common to the components of one cluster; `address` is that of the API server."""

    state: Path
    context: str
    address: str
    etcd_port: int
    api_port: int
    processes: ProcessTable
    bound: bool
    families: IPFamilies = IPFamilies.IPV4

    @property
    def server(self) -> str:
        """URL of the API server."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"https://{host}:{self.api_port}"

    @property
    def service_ranges(self) -> str:
        """Ranges of the Services' addresses, separated by commas."""
        ranges = {IPFamilies.IPV4: SERVICE_RANGE, IPFamilies.IPV6: SERVICE_RANGE_IPV6}
        return ranges.get(self.families, f"{SERVICE_RANGE},{SERVICE_RANGE_IPV6}")

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.state / "kubeconfig"

    def component_kubeconfig(self, name: str) -> Path:
        """The kubeconfig of one component."""
        return self.state / "pki" / f"{name}.kubeconfig"

    def start(
        self, name: str, flags: Mapping[str, str | int | Path], ready: Callable[[], bool] | None = None
    ) -> None:
        """Start a program with `--flag=value` for each flag, and wait until it is ready."""
        command = [program(name), *(f"--{flag}={value}" for flag, value in flags.items())]
        self.start_command(name, command, ready)

    def start_command(self, name: str, command: list[str], ready: Callable[[], bool] | None = None) -> None:
        """Start a command and wait until it is ready."""
        with stage(name):
            record = self.processes.start(name, command, env=GARBAGE_COLLECTION, bound=self.bound)
            if ready:
                self.processes.wait_until(record, ready, START_TIMEOUT)


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses, on any address.

    Raises:
        ClusterError: none were found.
    """
    ports: list[int] = []
    for port in random.SystemRandom().sample(PORTS, k=len(PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            ports.append(port)
        if len(ports) == count:
            return ports
    raise ClusterError(f"Found no {count} free ports between {PORTS.start} and {PORTS.stop}")


Flags = dict[str, str | int | Path]


def write_credentials(setting: Setting) -> Authority:
    """Make the keys of the control plane and the kubeconfigs of its clients."""
    authority = Authority(setting.state / "pki")
    names = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
    addresses = (LOOPBACK, FIRST_SERVICE_ADDRESS, LOOPBACK_IPV6, FIRST_SERVICE_ADDRESS_IPV6)
    hosts = (*names, "kubernetes.default.svc.cluster.local", *addresses)
    authority.issue("kube-apiserver", "kube-apiserver", hosts=sorted({*hosts, setting.address}))
    authority.issue("kubelet-client", "kube-apiserver-kubelet-client", ADMINISTRATORS)
    authority.issue_signing_key("service-accounts")
    authority.issue("administrator", "tunesmith-administrator", ADMINISTRATORS)
    authority.write_kubeconfig(setting.kubeconfig, setting.context, setting.server, "administrator")
    authority.issue("kwok", "kwok", ADMINISTRATORS)
    write_component_kubeconfig(setting, authority, "kwok")
    for component, user in CONTROLLERS.items():
        authority.issue(component, user)
        write_component_kubeconfig(setting, authority, component)
    return authority


def write_component_kubeconfig(setting: Setting, authority: Authority, name: str) -> None:
    """Write the kubeconfig of a component that has a certificate of the same name."""
    authority.write_kubeconfig(setting.component_kubeconfig(name), setting.context, setting.server, name)


def start_control_plane(setting: Setting, authority: Authority) -> None:
    """Start etcd, the API server, the controllers and the scheduler."""
    setting.start("etcd", _etcd_flags(setting), lambda: _accepts(setting.etcd_port))
    api = ApiClient(setting.kubeconfig)
    setting.start("kube-apiserver", _apiserver_flags(setting, authority), lambda: exists(api, "/readyz"))
    client_rate: Flags = {
        "kube-api-qps": 200,
        "kube-api-burst": 400,
        "leader-elect": "false",
        "secure-port": 0,
    }
    setting.start(
        "kube-controller-manager",
        {
            **client_rate,
            "kubeconfig": setting.component_kubeconfig("kube-controller-manager"),
            "root-ca-file": authority.path("ca"),
            "service-account-private-key-file": authority.path("service-accounts", "key"),
            "use-service-account-credentials": "true",
        },
        lambda: exists(api, "/api/v1/namespaces/default/serviceaccounts/default"),
    )
    setting.start(
        "kube-scheduler", {**client_rate, "kubeconfig": setting.component_kubeconfig("kube-scheduler")}
    )


def start_kwok(setting: Setting) -> None:
    """Start kwok for the nodes that carry its annotation."""
    stages = setting.state / "kwok.yaml"
    stages.write_text(resources.files("tunesmith_cluster").joinpath("data/kwok.yaml").read_text())
    (port,) = free_ports(1)
    flags: Flags = {
        "kubeconfig": setting.component_kubeconfig("kwok"),
        "config": stages,
        "manage-nodes-with-annotation-selector": "kwok.x-k8s.io/node=fake",
        "cidr": "10.200.0.1/16",
        # Without a lease a node counts as lost after 50 seconds, and its pods are no longer ready.
        "node-lease-duration-seconds": 40,
        "server-address": f"{LOOPBACK}:{port}",
    }
    setting.start("kwok", flags, lambda: answers_ok(LOOPBACK, port, "/healthz"))


def exists(api: ApiClient, path: str) -> bool:
    """True if an object exists; False too while the server cannot be reached."""
    try:
        api.get(path)
    except (ApiError, OSError):
        return False
    return True


def answers_ok(address: str, port: int, path: str) -> bool:
    """True if a plain HTTP endpoint answers with 200."""
    connection = http.client.HTTPConnection(address, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


def _etcd_flags(setting: Setting) -> Flags:
    client = f"http://{LOOPBACK}:{setting.etcd_port}"
    return {
        "data-dir": setting.state / "etcd",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": f"http://{LOOPBACK}:0",
        "unsafe-no-fsync": "true",
        "logger": "zap",
        "log-level": "warn",
    }


def _apiserver_flags(setting: Setting, authority: Authority) -> Flags:
    return {
        "etcd-servers": f"http://{LOOPBACK}:{setting.etcd_port}",
        "secure-port": setting.api_port,
        "bind-address": setting.address,
        "advertise-address": setting.address,
        # A loopback address is refused as an endpoint of the `kubernetes` Service.
        "endpoint-reconciler-type": "none" if setting.address in {LOOPBACK, LOOPBACK_IPV6} else "lease",
        "allow-privileged": "true",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        # By default from Kubernetes 1.36 on. With policies tests change pods without a webhook, as a service mesh does,
        # and as OpenShift assigns users.
        "feature-gates": "MutatingAdmissionPolicy=true",
        "runtime-config": "admissionregistration.k8s.io/v1beta1=true",
        "tls-cert-file": authority.path("kube-apiserver"),
        "tls-private-key-file": authority.path("kube-apiserver", "key"),
        "client-ca-file": authority.path("ca"),
        "service-account-key-file": authority.path("service-accounts", "pub"),
        "service-account-signing-key-file": authority.path("service-accounts", "key"),
        "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
        "service-cluster-ip-range": setting.service_ranges,
        "kubelet-client-certificate": authority.path("kubelet-client"),
        "kubelet-client-key": authority.path("kubelet-client", "key"),
        "kubelet-certificate-authority": authority.path("ca"),
        # The node's name is in no DNS.
        "kubelet-preferred-address-types": "InternalIP",
    }
