"""Node on this host without Docker: containerd, kubelet, kube-proxy, CoreDNS."""

import json
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from tunesmith_cluster import controlplane, host
from tunesmith_cluster.api import ApiClient
from tunesmith_cluster.binaries import CNI_PACKAGE, CNI_PLUGINS, program
from tunesmith_cluster.certificates import Authority
from tunesmith_cluster.client import eventually
from tunesmith_cluster.controlplane import Flags, Setting
from tunesmith_cluster.errors import ClusterError
from tunesmith_cluster.host import NETWORK, NODE_ADDRESS, POD_RANGE
from tunesmith_cluster.images import PAUSE_IMAGE, ImageStore, write_static_image
from tunesmith_cluster.paths import cache_dir

CONTAINERD = "containerd"
NODE_NAME = "tunesmith-node"
DOMAIN = "cluster.local"
PROGRAMS = (
    *("etcd", "kube-apiserver", "kubectl", "kubelet", "kube-proxy", "coredns", "pause"),
    *("containerd", "ctr", "runc", "iptables", "conntrack", "ip", "modprobe"),
)
# Smaller than Ethernet's, because the machine's own link may be a tunnel.
POD_MTU = 1400
# The kernel allows 107 bytes, and containerd appends to the path.
LONGEST_SOCKET_PATH = 100
RESOLVER = Path("/etc/resolv.conf")


def check_machine(state: Path) -> None:
    """Check the requirements of a node that would otherwise fail later with an unclear error.

    Raises:
        ClusterError: the CNI plugins are not installed, or the state folder's path is too long for a socket.
    """
    if len(str(socket_path(state))) > LONGEST_SOCKET_PATH:
        raise ClusterError(f"{state} is too long a path for sockets: choose a shorter one with --state")
    if not CNI_PLUGINS.joinpath("bridge").exists():
        raise ClusterError(f"The CNI plugins are not installed. Run as root: apt-get install {CNI_PACKAGE}")


def socket_path(state: Path) -> Path:
    """containerd's socket."""
    return state / "containerd.sock"


def image_root() -> Path:
    """Folder in which containerd keeps images from one cluster to the next."""
    return cache_dir() / "containerd"


def start_node(setting: Setting, authority: Authority) -> None:
    """Start what makes this machine a node, once the control plane is ready."""
    api = ApiClient(setting.kubeconfig)
    _issue_credentials(setting, authority)
    images = _start_containerd(setting)
    remove_containers(images)
    _load_pause(setting, images)
    _start_kubelet(setting, authority, api)
    _start_kube_proxy(setting)
    _start_coredns(setting)


def remove_containers(images: ImageStore) -> None:
    """Remove all containers with their snapshots, and keep the images."""
    eventually(lambda: _removed(images, "tasks", "--force"), what="the last task to end")
    eventually(lambda: _removed(images, "containers"), what="the last container to go")


def _removed(images: ImageStore, kind: str, *flags: str) -> bool:
    """Delete all objects of a kind; returns False if some are left. An object may disappear by itself meanwhile."""
    for name in images.ctr(kind, "list", "--quiet").split():
        with suppress(ClusterError):
            images.ctr(kind, "delete", *flags, name)
    return not images.ctr(kind, "list", "--quiet").split()


def remove_containers_if_possible(state: Path) -> None:
    """The same at the end, where containerd may be dead: then the next start finds and removes them."""
    images = ImageStore(socket_path(state))
    if _answers(images):
        remove_containers(images)


def _issue_credentials(setting: Setting, authority: Authority) -> None:
    authority.issue("kubelet", f"system:node:{NODE_NAME}", "system:nodes", [NODE_NAME, NODE_ADDRESS])
    authority.issue("kube-proxy", "system:kube-proxy")
    authority.issue("coredns", "tunesmith-coredns", controlplane.ADMINISTRATORS)
    for name in ("kubelet", "kube-proxy", "coredns"):
        controlplane.write_component_kubeconfig(setting, authority, name)


def _start_containerd(setting: Setting) -> ImageStore:
    cni = setting.state / "cni"
    cni.mkdir()
    (cni / "10-bridge.conflist").write_text(json.dumps(build_network(setting.state / "ipam"), indent=1))
    configuration = setting.state / "containerd.toml"
    configuration.write_text(render_toml(build_containerd_configuration(setting.state, cni)))
    images = ImageStore(socket_path(setting.state))
    setting.start_command(
        CONTAINERD,
        [program("containerd"), "--config", str(configuration), "--log-level", "warn"],
        lambda: _answers(images),
    )
    return images


def _answers(images: ImageStore) -> bool:
    try:
        images.ctr("images", "list", "--quiet")
    except ClusterError:
        return False
    return True


def _load_pause(setting: Setting, images: ImageStore) -> None:
    archive = setting.state / "pause.tar"
    write_static_image(archive, PAUSE_IMAGE, Path(program("pause")))
    images.load(archive)


def _start_kubelet(setting: Setting, authority: Authority, api: ApiClient) -> None:
    resolver = setting.state / "resolv.conf"
    resolver.write_text(f"nameserver {NODE_ADDRESS}\n")
    configuration = setting.state / "kubelet.yaml"
    (port,) = controlplane.free_ports(1)
    configuration.write_text(yaml.safe_dump(build_kubelet_configuration(setting.state, authority, port)))
    flags: Flags = {
        "config": configuration,
        "kubeconfig": setting.component_kubeconfig("kubelet"),
        "hostname-override": NODE_NAME,
        "node-ip": NODE_ADDRESS,
        "root-dir": setting.state / "kubelet",
        "cert-dir": setting.state / "pki",
    }
    setting.start("kubelet", flags, lambda: _node_is_ready(api))


def _node_is_ready(api: ApiClient) -> bool:
    path = f"/api/v1/nodes/{NODE_NAME}"
    if not controlplane.exists(api, path):
        return False
    node = api.get(path)
    conditions = {item["type"]: item["status"] for item in node["status"].get("conditions", ())}
    return conditions.get("Ready") == "True" and not node["spec"].get("taints")


def _start_kube_proxy(setting: Setting) -> None:
    """Start kube-proxy and wait for its rules: without them a pod would not reach Services."""
    (metrics_port,) = controlplane.free_ports(1)
    flags: Flags = {
        "kubeconfig": setting.component_kubeconfig("kube-proxy"),
        "cluster-cidr": POD_RANGE,
        "hostname-override": NODE_NAME,
        "proxy-mode": "iptables",
        "bind-address": NODE_ADDRESS,
        "healthz-bind-address": "",
        "metrics-bind-address": f"{controlplane.LOOPBACK}:{metrics_port}",
        "conntrack-max-per-core": 0,
        "conntrack-tcp-timeout-established": "0s",
        "conntrack-tcp-timeout-close-wait": "0s",
        "iptables-localhost-nodeports": "false",
    }
    setting.start("kube-proxy", flags, host.has_service_rules)


def _start_coredns(setting: Setting) -> None:
    (port,) = controlplane.free_ports(1)
    corefile = setting.state / "Corefile"
    kubeconfig = setting.component_kubeconfig("coredns")
    corefile.write_text(render_corefile(kubeconfig, port, has_resolver(RESOLVER)))
    command = [program("coredns"), "-conf", str(corefile)]
    setting.start_command("coredns", command, lambda: controlplane.answers_ok(NODE_ADDRESS, port, "/ready"))


def has_resolver(path: Path) -> bool:
    """True if the host has a name server configured."""
    return path.exists() and any(line.startswith("nameserver") for line in path.read_text().splitlines())


def render_corefile(kubeconfig: Path, ready_port: int, forward: bool) -> str:
    """CoreDNS's configuration. No cache: a Job's pods look each other up the moment they exist."""
    lines = [
        ".:53 {",
        f"    bind {NODE_ADDRESS}",
        "    errors",
        f"    ready {NODE_ADDRESS}:{ready_port}",
        f"    kubernetes {DOMAIN} in-addr.arpa {{",
        f"        kubeconfig {kubeconfig}",
        "        pods insecure",
        "    }",
        *([f"    forward . {RESOLVER}"] if forward else []),
        "}",
    ]
    return "\n".join(lines) + "\n"


def build_network(ipam: Path) -> dict[str, Any]:
    """The CNI network: pods on our bridge, with addresses that are forgotten together with the cluster."""
    bridge = {
        "type": "bridge",
        "bridge": host.BRIDGE,
        "isGateway": True,
        "hairpinMode": True,
        "mtu": POD_MTU,
        "ipam": {
            "type": "host-local",
            "dataDir": str(ipam),
            "ranges": [[{"subnet": POD_RANGE, "gateway": NODE_ADDRESS}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    return {"cniVersion": "0.4.0", "name": NETWORK, "plugins": [bridge]}


def build_containerd_configuration(state: Path, cni: Path) -> dict[str, Any]:
    """containerd's configuration: images in the cache, everything else in the state folder."""
    options = {"SystemdCgroup": False, "Root": str(state / "runc")}
    runc = {"runtime_type": "io.containerd.runc.v2", "options": options}
    cri = {
        "sandbox_image": PAUSE_IMAGE,
        # Without CAP_SYS_RESOURCE runc may not lower the score, and dies without naming the reason.
        "restrict_oom_score_adj": True,
        "tolerate_missing_hugetlb_controller": True,
        "netns_mounts_under_state_dir": True,
        "containerd": {
            "snapshotter": "overlayfs",
            "default_runtime_name": "runc",
            "runtimes": {"runc": runc},
        },
        "cni": {"bin_dir": str(CNI_PLUGINS), "conf_dir": str(cni)},
    }
    return {
        "version": 2,
        "root": str(image_root()),
        "state": str(state / "containerd"),
        "disabled_plugins": ["io.containerd.internal.v1.opt"],
        "grpc": {"address": str(socket_path(state))},
        "plugins": {"io.containerd.grpc.v1.cri": cri},
    }


def render_toml(document: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """TOML of nested tables whose values are JSON-like; the standard library can only read it."""
    values = [
        f"{key} = {json.dumps(value)}" for key, value in document.items() if not isinstance(value, Mapping)
    ]
    text = "\n".join(values) + "\n"
    for key, value in document.items():
        if isinstance(value, Mapping):
            inner = (*path, json.dumps(key))
            text += f"[{'.'.join(inner)}]\n{render_toml(value, inner)}"
    if not path and tomllib.loads(text) != document:
        raise AssertionError("the document holds something that this renderer does not know")
    return text


def build_kubelet_configuration(state: Path, authority: Authority, port: int) -> dict[str, Any]:
    """KubeletConfiguration for a machine that may have cgroup v1, no systemd, and an almost full disk."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "port": port,
        "healthzPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": authority.path("ca")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": authority.path("kubelet"),
        "tlsPrivateKeyFile": authority.path("kubelet", "key"),
        "containerRuntimeEndpoint": f"unix://{socket_path(state)}",
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        "clusterDNS": [NODE_ADDRESS],
        "clusterDomain": DOMAIN,
        "resolvConf": str(state / "resolv.conf"),
        "podLogsDir": str(state / "pod-logs"),
        "volumePluginDir": str(state / "volume-plugins"),
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "200Mi",
            "imagefs.available": "200Mi",
        },
        # Images come from archives only: what is collected cannot be pulled again.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }
