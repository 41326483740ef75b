"""Changes of a node to the host outside its state folder, with their reversal."""

import json
import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tunesmith_cluster.binaries import program
from tunesmith_cluster.controlplane import FIRST_SERVICE_ADDRESS, SERVICE_RANGE
from tunesmith_cluster.errors import ClusterError
from tunesmith_cluster.processes import ProcessTable, find_left_over, is_alive, kill_and_wait, parent

BRIDGE = "tunesmith0"
NODE_ADDRESS = "10.244.0.1"
# Of the bridge. A bridge without one takes the lowest of its pods', and the other pods would send to that one for half
# a minute after its pod has ended.
HARDWARE_ADDRESS = "02:00:0a:f4:00:01"
POD_RANGE = "10.244.0.0/24"
NETWORK = "tunesmith-pods"
# containerd names the group after its namespace.
CGROUP = "k8s.io"
CGROUP_ROOT = Path("/sys/fs/cgroup")
SYSCTLS = (Path("/proc/sys/net/ipv4/ip_forward"), Path("/proc/sys/net/bridge/bridge-nf-call-iptables"))
CNI_RESULTS = Path("/var/lib/cni/results")
CONTAINER_LOGS = Path("/var/log/containers")
# Folders that kubelet, containerd and the CNI library insist on, removed again where they end up empty.
FOLDERS = (
    CNI_RESULTS,
    CNI_RESULTS.parent,
    CONTAINER_LOGS,
    Path("/run/containerd/s"),
    Path("/run/containerd"),
    Path("/var/lib/kubelet/device-plugins"),
    Path("/var/lib/kubelet"),
)
# kube-proxy's own clean-up leaves this chain to the kubelet, which is configured not to change the firewall.
FIREWALL_CHAIN = "KUBE-FIREWALL"
OUTBOUND = (
    "POSTROUTING",
    "-s",
    POD_RANGE,
    "!",
    "-d",
    POD_RANGE,
    "-m",
    "comment",
    "--comment",
    NETWORK,
    "-j",
    "MASQUERADE",
)

# Until kube-proxy knows a Service, a packet to its address would leave the machine, and whoever answers there would be
# taken for the Service.
UNKNOWN_SERVICES = (
    "FORWARD",
    "-s",
    POD_RANGE,
    "-d",
    SERVICE_RANGE,
    "-m",
    "comment",
    "--comment",
    NETWORK,
    "-j",
    "REJECT",
)


def prepare_host(state: Path) -> None:
    """Make the pods' bridge and let their packets through. What a dead cluster left is cleaned up first.

    Raises:
        ClusterError: not root, or another node cluster uses the bridge.
    """
    if os.geteuid() != 0:
        raise ClusterError(
            "A cluster with a node needs root: run as root, or use a machine with Docker and kind"
        )
    owner = _bridge_owner()
    if owner and not any(map(is_alive, ProcessTable(Path(owner)).records())):
        restore_host(Path(owner))
    elif owner is not None:
        raise ClusterError(
            f"The network bridge {BRIDGE} belongs to the node cluster in {owner or '(unknown)'}; only "
            f"one runs at a time. Stop it with: python -m tunesmith_cluster down --shape node --state {owner}"
        )
    _set_sysctls(state / "sysctls.json")
    if not _iptables_accepts("-S", FIREWALL_CHAIN):
        (state / FIREWALL_CHAIN).touch()
    _run([program("ip"), "link", "add", BRIDGE, "address", HARDWARE_ADDRESS, "type", "bridge"])
    _run([program("ip"), "link", "set", BRIDGE, "alias", str(state)])
    _run([program("ip"), "address", "add", f"{NODE_ADDRESS}/24", "dev", BRIDGE])
    _run([program("ip"), "link", "set", BRIDGE, "up"])
    _run([program("iptables"), "-w", "-t", "nat", "-A", *OUTBOUND])
    _run([program("iptables"), "-w", "-A", *UNKNOWN_SERVICES])


def restore_host(state: Path) -> None:
    """Undo everything; does nothing where there is nothing, so it may follow a crash.

    Raises:
        ClusterError: a mount below the state folder stays, so that removing it could reach into a volume.
    """
    _kill_pods(state)
    _remove_cgroups()
    _unmount_below(state)
    owner = _bridge_owner()
    if owner not in (None, str(state)):
        return  # The rest belongs to another cluster.
    if owner is not None:
        _run([program("kube-proxy"), "--cleanup"])
        if (state / FIREWALL_CHAIN).exists() and _iptables_accepts("-S", FIREWALL_CHAIN):
            _remove_firewall_chain()
        if _iptables_accepts("-t", "nat", "-C", *OUTBOUND):
            _run([program("iptables"), "-w", "-t", "nat", "-D", *OUTBOUND])
        if _iptables_accepts("-C", *UNKNOWN_SERVICES):
            _run([program("iptables"), "-w", "-D", *UNKNOWN_SERVICES])
        _run([program("ip"), "link", "delete", BRIDGE])
    _restore_sysctls(state / "sysctls.json")
    _remove_network_results()
    for link in CONTAINER_LOGS.glob("*"):
        if link.is_symlink() and str(state) in str(link.readlink()):
            link.unlink()
    _remove_kubelet_sockets()
    for folder in FOLDERS:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def has_service_rules() -> bool:
    """True if kube-proxy has written the rule of the API server's own Service."""
    command = [program("iptables"), "-w", "-t", "nat", "-S", "KUBE-SERVICES"]
    rules = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return f"-d {FIRST_SERVICE_ADDRESS}/32" in rules


def _iptables_accepts(*arguments: str) -> bool:
    """True if iptables succeeds with the arguments, such as a check for a rule or chain."""
    command = [program("iptables"), "-w", *arguments]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _remove_firewall_chain() -> None:
    for rule in (("-D", "INPUT", "-j"), ("-D", "OUTPUT", "-j"), ("-F",), ("-X",)):
        _run([program("iptables"), "-w", *rule, FIREWALL_CHAIN])


def _remove_kubelet_sockets() -> None:
    plugins = Path("/var/lib/kubelet/device-plugins")
    for name in ("kubelet.sock", "DEPRECATION", "kubelet_internal_checkpoint"):
        plugins.joinpath(name).unlink(missing_ok=True)


def _run(command: Sequence[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ClusterError(f"{' '.join(command)}: {result.stderr.strip()}")


def _bridge_owner() -> str | None:
    """State folder of the cluster whose bridge this is, None where there is no bridge."""
    try:
        return Path(f"/sys/class/net/{BRIDGE}/ifalias").read_text().strip()
    except FileNotFoundError:
        return None


def _set_sysctls(record: Path) -> None:
    if not SYSCTLS[1].exists():
        _run([program("modprobe"), "br_netfilter"])
    record.write_text(json.dumps({str(path): path.read_text() for path in SYSCTLS}))
    for path in SYSCTLS:
        path.write_text("1")


def _restore_sysctls(record: Path) -> None:
    if record.exists():
        for path, value in json.loads(record.read_text()).items():
            Path(path).write_text(value)


def _kill_pods(state: Path) -> None:
    """End what outlived containerd: the shims that name its socket, and the first process of each container.

    A container's other processes end with its first one.
    """
    shims = {int(line.split()[0]) for line in find_left_over(str(state / "containerd.sock"))}
    pids = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    for pid in (*(pid for pid in pids if parent(pid) in shims), *shims):
        kill_and_wait(pid)


def _remove_cgroups() -> None:
    """Remove the groups of containers in every hierarchy, of cgroup v1 and v2; one that is in use stays."""
    for root in (CGROUP_ROOT / CGROUP, *CGROUP_ROOT.glob(f"*/{CGROUP}")):
        for folder, _, _ in os.walk(root, topdown=False):
            with suppress(OSError):
                os.rmdir(folder)


def _remove_network_results() -> None:
    """Forget what the CNI library remembers of our pods: one file for each network of a sandbox."""
    marker = f"{NETWORK}-"
    sandboxes = [path.name.removeprefix(marker).split("-")[0] for path in CNI_RESULTS.glob(f"{marker}*")]
    for sandbox in sandboxes:
        for result in CNI_RESULTS.glob(f"*-{sandbox}-*"):
            result.unlink()


def _mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    return sorted((point for point in points if point.startswith(f"{folder}/")), reverse=True)


def _unmount_below(folder: Path) -> None:
    for point in _mounts_below(folder):
        subprocess.run(["/usr/bin/umount", "--lazy", point], capture_output=True, check=False)
    left = _mounts_below(folder)
    if left:
        raise ClusterError(f"Still mounted, so {folder} is kept: {', '.join(left)}. Unmount and try again")
