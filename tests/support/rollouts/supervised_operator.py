"""The operator as a process that is started again whenever it ends, as a kubelet does it."""

import asyncio
import signal
from pathlib import Path

from control_plane.operator_life import Life
from control_plane.operator_process import STOP_SECONDS, listening

from tunesmith_cluster.controlplane import free_ports
from tunesmith_cluster.fake import ControlPlane

RESTART_SECONDS = 0.5


class SupervisedOperator:
    """``python -m tunesmith`` in a namespace of its own; pods find it by its Service's name on this machine.

    Attributes:
        starts: how often it was started.
    """

    def __init__(self, server: ControlPlane, folder: Path, watch_namespace: str) -> None:
        self.namespace = server.namespace("operator")
        self.starts = 0
        self._kubeconfig, self._log = server.kubeconfig, folder / "operator.log"
        http_port, tls_port = free_ports(2)
        self._arguments = [
            f"--namespace={self.namespace}",
            f"--watch-namespaces={watch_namespace}",
            f"--service-port={tls_port}",
            *listening(http_port, tls_port),
        ]
        self._process: Life | None = None

    async def run(self) -> None:
        """Run it until cancelled."""
        try:
            while True:
                self.starts += 1
                self._process = Life(self._kubeconfig, self._log, self._arguments)
                await self._until_ended(self._process)
                await asyncio.sleep(RESTART_SECONDS)
        finally:
            if self._process is not None and self._process.exit_code is None:
                self._process.send(signal.SIGTERM)
                self._process.wait(STOP_SECONDS)

    async def _until_ended(self, process: Life) -> None:
        while True:
            if process.exit_code is not None:
                return
            await asyncio.sleep(RESTART_SECONDS / 2)

    def kill(self) -> None:
        """Kill it in the middle of anything."""
        assert self._process is not None
        self._process.send(signal.SIGKILL)
