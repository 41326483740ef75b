"""Command line of the demo: ``python -m tunesmith_demo up|down``."""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console

from tunesmith_cluster.api import ApiError
from tunesmith_cluster.binaries import build_programs, install_debian_packages
from tunesmith_cluster.client import ClusterClient, KubectlError
from tunesmith_cluster.errors import ClusterError
from tunesmith_images.run import BuildError

from . import show
from .installation import fill_claim, install_chart
from .playground import Playground
from .progress import DemoFailed
from .stages import Stages

MODEL = "smollm2-135m-instruct"
CLAIMS = ("models", "artifacts")
PLAN = """\
[bold]Tunesmith: from kubectl apply to an answered request[/bold]

This will, on this machine:
  1. install Debian packages: etcd, containerd, runc, CNI plugins, iptables, buildah, debootstrap (about 1 min)
  2. build the images of operator, trainer and server (minutes cold, some 45 GB with all caches, then cached)
     and beside them Kubernetes, helm and CoreDNS from Go modules (minutes cold, then cached)
  3. convert SmolLM2-135M-Instruct to safetensors, in the trainer image (about 20 s, then cached)
  4. start a cluster with one node (a bridge, iptables rules and a containerd of its own; about 30 s)
  5. install the Helm chart and apply examples/quickstart: train, evaluate, serve (about 8 min)
At most 30 min cold and 10 min warm on 2 cores. `make demo-down` removes the cluster, `make clean-cache` the caches.
"""


def up(console: Console) -> None:
    """Bring everything up, show it, and say where the time went."""
    stages, playground = Stages(console), Playground()
    console.print(PLAN)
    with stages.stage("system packages"):
        install_debian_packages()
    # Programs wait for the processor, images for the network and the disk.
    with ThreadPoolExecutor(1) as beside:
        programs = beside.submit(build_programs, playground.programs)
        with stages.stage("images, and beside them cluster programs"):
            images = playground.build()
        with stages.stage("base model"):
            model = playground.make_model(images["trainer"])
        with stages.stage("the rest of the cluster programs"):
            programs.result()
    with stages.stage("cluster"):
        client = playground.up()
    with stages.stage("images onto the node"):
        playground.load(list(images.values()))
    with stages.stage("Helm chart"):
        install_chart(client, images)
    with stages.stage("model onto its claim"):
        playground.provide_volumes(client, show.NAMESPACE, CLAIMS)
        show.apply_claims(client)
        fill_claim(client, show.NAMESPACE, "models", images["trainer"], model, MODEL)
    show_the_loop(client, console, stages)
    console.print(stages.table())
    console.print(f"Look around: export KUBECONFIG={client.kubeconfig}; kubectl get ftj,er,ad -A")
    console.print("Remove it all: make demo-down")


def show_the_loop(client: ClusterClient, console: Console, stages: Stages) -> None:
    """Apply, train, evaluate, serve, ask."""
    show.apply_quickstart(client)
    with stages.stage("training"):
        show.watch_training(client, console)
    with stages.stage("evaluation"):
        show.watch_evaluation(client, console)
    show.show_results(client, console)
    with stages.stage("serving"):
        show.watch_serving(client, console)
    with stages.stage("questions"):
        show.show_answers(client, console)
    show.show_listing(client, console)


def main() -> int:
    """Run one command; the exit code is 1 where the show could not go on."""
    parser = argparse.ArgumentParser(prog="python -m tunesmith_demo", description=__doc__)
    parser.add_argument("command", choices=["up", "down"])
    console = Console()
    try:
        if parser.parse_args().command == "up":
            up(console)
        else:
            Playground().down()
    except (
        ApiError,
        BuildError,
        ClusterError,
        DemoFailed,
        KubectlError,
        ConnectionError,
        RuntimeError,
    ) as error:
        console.print(f"[red]{error}[/red]")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
