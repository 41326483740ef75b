"""How the operator proves who it is: the pod's service account, or a kubeconfig for development."""

import os
import time
from collections.abc import Callable
from dataclasses import replace

import kopf

#: The kubelet renews a projected token well before it expires; reading it again is cheap.
REREAD_SECONDS = 60.0


class NoCredentials(RuntimeError):
    """Neither a service account nor a kubeconfig was found."""


def load_connection() -> kopf.ConnectionInfo:
    """Address, authority and credentials, of the pod's service account or else of ``KUBECONFIG``.

    Raises:
        NoCredentials: there are none.
    """
    settings = kopf.OperatorSettings()
    connection = kopf.login_with_service_account(settings=settings)
    if connection is not None:
        return replace(connection, server=_in_cluster_server())
    connection = kopf.login_with_kubeconfig(settings=settings)
    if connection is None:
        raise NoCredentials("run in a pod with a service account, or set KUBECONFIG to a kubeconfig file")
    return connection


def _in_cluster_server() -> str:
    """The address that works without DNS."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


class Credentials:
    """Headers of authorization, read again when they may have been renewed."""

    def __init__(
        self,
        load: Callable[[], kopf.ConnectionInfo] = load_connection,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._clock = clock
        self._read_at = clock()
        self.connection = load()
        self._headers = self.connection.as_http_headers()

    def headers(self) -> dict[str, str]:
        """The current headers."""
        if self._clock() - self._read_at > REREAD_SECONDS:
            self.reload()
        return self._headers

    def reload(self) -> None:
        """Read the credentials again: they are old, or were rejected."""
        self._read_at = self._clock()
        self._headers = self._load().as_http_headers()
