"""Command line: ``python -m tunesmith_cluster up|down|status|kubeconfig|build|install|path``."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tunesmith_cluster.binaries import build_programs, go_builds, install_debian_packages, program
from tunesmith_cluster.cluster import Cluster, Shape
from tunesmith_cluster.engines import open_cluster
from tunesmith_cluster.errors import ClusterError
from tunesmith_cluster.kind import KindCluster
from tunesmith_cluster.report import say

# kind is only built where Docker wants it, the test's probe by the test.
STORAGE_SERVERS = ("versitygw", "registry")
DEFAULT_BUILDS = ("kubectl", "pause", "kwok", "helm", "coredns", "gitops", *STORAGE_SERVERS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except ClusterError as error:
        say(f"error: {error}")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tunesmith_cluster", description=__doc__)
    commands = parser.add_subparsers(required=True)
    _add_cluster_command(commands, "up", _up, "start a cluster, unless it already runs")
    _add_cluster_command(
        commands, "down", _down, "stop a cluster and remove all of it but the built programs"
    )
    _add_cluster_command(
        commands, "status", _status, "list running processes; exit status 1 if one has died or none runs"
    )
    _add_cluster_command(commands, "kubeconfig", _kubeconfig, "print the path of the kubeconfig")
    commands.add_parser("install", help="install Debian packages (root)").set_defaults(command=_install)
    build = commands.add_parser("build", help="build programs into the cache")
    build.add_argument(
        "names", nargs="*", metavar="PROGRAM", help="default: what both shapes and the storage tests need"
    )
    build.set_defaults(command=_build)
    load = _add_cluster_command(commands, "load", _load, "import OCI archives into the node")
    load.set_defaults(shape=Shape.NODE)
    load.add_argument("archives", nargs="+", type=Path, metavar="ARCHIVE")
    path = commands.add_parser("path", help="print the path of a program, built where missing")
    path.add_argument("name", metavar="PROGRAM", choices=sorted(go_builds()))
    path.set_defaults(command=_path)
    return parser


def _add_cluster_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    command: Callable[[argparse.Namespace], int],
    description: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=description)
    parser.add_argument("--shape", type=Shape, choices=list(Shape), default=Shape.CONTROL_PLANE)
    parser.add_argument(
        "--state", type=Path, help="folder of the cluster; several may run in several folders"
    )
    parser.set_defaults(command=command)
    return parser


def _cluster(options: argparse.Namespace) -> Cluster | KindCluster:
    return open_cluster(options.shape, options.state)


def _up(options: argparse.Namespace) -> int:
    cluster = _cluster(options)
    cluster.up()
    print(cluster.kubeconfig)
    return 0


def _down(options: argparse.Namespace) -> int:
    _cluster(options).down()
    return 0


def _status(options: argparse.Namespace) -> int:
    cluster = _cluster(options)
    status = cluster.status()
    print(
        f"{status.shape}: {len(status.running)} running ({', '.join(status.running)}); logs in {cluster.logs}"
    )
    for name, tail in status.dead.items():
        print(f"{name} is dead. The end of its log:\n{tail}")
    return 0 if status.running and not status.dead else 1


def _kubeconfig(options: argparse.Namespace) -> int:
    cluster = _cluster(options)
    if not cluster.kubeconfig.exists():
        raise ClusterError(f"there is no {cluster.shape} cluster in {cluster.state}: start it with `up`")
    print(cluster.kubeconfig)
    return 0


def _load(options: argparse.Namespace) -> int:
    cluster = _cluster(options)
    for archive in options.archives:
        print(*cluster.load_image(archive), sep="\n")
    return 0


def _install(_: argparse.Namespace) -> int:
    install_debian_packages()
    return 0


def _build(options: argparse.Namespace) -> int:
    build_programs(options.names or DEFAULT_BUILDS)
    return 0


def _path(options: argparse.Namespace) -> int:
    print(program(options.name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
