"""HTTP sessions to the API server: configuration, credentials, TLS and proxy as ``kubernetes.aio`` reads them."""

import asyncio
import contextlib
import ipaddress
import logging
import os
import ssl
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, Self

import aiohttp
import yaml
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException, load_incluster_config
from kubernetes.aio.config.kube_config import KubeConfigLoader, KubeConfigMerger
from kubernetes.aio.config.openid import OpenIDRequestor
from yarl import URL

logger = logging.getLogger(__name__)

#: The kubelet renews a projected token well before it expires; reading it again is cheap.
REREAD_SECONDS = 60.0
#: For the first read: an exec plugin may ask a person.
FIRST_READ_SECONDS = 60.0
#: For a later read, while calls wait: below the deadline of the leader's lease.
READ_SECONDS = 5.0
CONNECT_SECONDS = 10.0
REQUEST_SECONDS = 60.0
#: Connections that calls share. Watches have a session of their own, without a limit: each holds one for minutes.
MAX_CONNECTIONS = 64
UNLIMITED = 0
#: The queue's longest back-off; a watch that waited for the hour that a proxy asks for would count as dead.
LONGEST_RETRY_AFTER_SECONDS = 300.0

_UNREADABLE = (ConfigException, aiohttp.ClientError, KeyError, OSError, TypeError, ValueError, yaml.YAMLError)


class NoCredentials(RuntimeError):
    """Neither a service account nor a kubeconfig can be read."""


class ConfigurationSource(Protocol):
    """Origin of the configuration: a kubeconfig or a service account."""

    async def read(self, rejected: bool = False) -> Configuration:
        """The current configuration.

        Args:
            rejected: the API server no longer accepts the credentials of the last read.

        Raises:
            NoCredentials: it can't be read; the message says what to do.
        """
        ...


class DefaultSource:
    """The pod's service account, or else the files that ``KUBECONFIG`` names (``~/.kube/config`` by default)."""

    def __init__(self) -> None:
        self._loader: _KubeConfigLoader | None = None
        self._stamps: tuple[object, ...] = ()

    async def read(self, rejected: bool = False) -> Configuration:
        """The current configuration; tokens of plugins and of OIDC issuers are kept until they expire."""
        configuration = Configuration()
        try:
            load_incluster_config(configuration, try_refresh_token=False)  # type: ignore[no-untyped-call]
        except ConfigException as error:
            paths = _kubeconfig_paths()
            if not any(_stamp(path) for path in paths):
                raise NoCredentials(
                    f"no service account ({error}) and no kubeconfig ({', '.join(paths)}): run in a pod with a service"
                    " account, or set KUBECONFIG to a kubeconfig file"
                ) from error
            await self._read_kubeconfig(paths, configuration, rejected)
        return configuration

    async def _read_kubeconfig(
        self, paths: Sequence[str], configuration: Configuration, rejected: bool
    ) -> None:
        stamps = tuple(_stamp(path) for path in paths)
        loader = self._loader
        try:
            if loader is None or rejected or stamps != self._stamps:
                merged = KubeConfigMerger(os.pathsep.join(paths))  # type: ignore[no-untyped-call]
                loader = _KubeConfigLoader(merged.config, config_base_path=None)  # type: ignore[no-untyped-call]
            await loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
        except _UNREADABLE as error:
            raise NoCredentials(f"can't read the kubeconfig {', '.join(paths)}: {error}") from error
        self._loader, self._stamps = loader, stamps


class Connection:
    """Sessions under the current configuration: one with a bounded pool for calls, an unbounded one for watches.

    The configuration is read again every minute, after a 401 and after a TLS error. When it names another server or
    proxy, or a certificate file has changed, both sessions are replaced; requests on the old ones run to their end.

    Args:
        clock: monotonic seconds.
    """

    def __init__(
        self, source: ConfigurationSource | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._source = source or DefaultSource()
        self._clock = clock
        self._lock = asyncio.Lock()
        self._rejected = False
        self._due = float("-inf")
        self._configuration = Configuration()
        self._transport: tuple[object, ...] = ()
        self._calls: Pool | None = None
        self._watches: Pool | None = None

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(FIRST_READ_SECONDS):
                self._configuration = await self._source.read()
        except TimeoutError as error:
            raise NoCredentials(f"credentials not read within {FIRST_READ_SECONDS:.0f} s") from error
        self._due = self._clock() + REREAD_SECONDS
        try:
            await self._replace_sessions()
        except (OSError, ValueError) as error:
            raise NoCredentials(f"can't load the certificates for {self.server}: {error}") from error
        return self

    async def __aexit__(self, *exception: object) -> None:
        for pool in (self._calls, self._watches):
            if pool is not None:
                await pool.session.close()

    @property
    def server(self) -> str:
        """URL of the API server, without a slash at its end."""
        host: str = self._configuration.host
        return host.rstrip("/")

    async def calls(self) -> "Pool":
        """The session for calls: ``async with`` it for each call."""
        await self._refresh()
        return _opened(self._calls)

    async def watches(self) -> "Pool":
        """The session for watches: ``async with`` it for each watch."""
        await self._refresh()
        return _opened(self._watches)

    async def new_session(self, limit: int = UNLIMITED) -> aiohttp.ClientSession:
        """A session for a client that closes it itself; its requests carry the current credentials.

        Such a client may obey ``Retry-After`` without bounds: an answer that asks for too long a wait is a lost
        connection to it.
        """
        await self._refresh()
        return self._open_session(limit, _refuse_long_waits)

    def reject_credentials(self) -> None:
        """Read all credentials again before the next request: the API server rejected the credentials."""
        self._rejected = True
        self._due = float("-inf")

    def read_again(self) -> None:
        """Read the configuration again before the next request: a TLS handshake failed."""
        self._due = float("-inf")

    async def _refresh(self) -> None:
        if self._clock() < self._due:
            return
        async with self._lock:
            if self._clock() < self._due:
                return
            self._due = self._clock() + REREAD_SECONDS
            try:
                async with asyncio.timeout(READ_SECONDS):
                    self._configuration = await self._source.read(self._rejected)
                self._rejected = False
                if _transport(self._configuration) != self._transport:
                    await self._replace_sessions()
            except (NoCredentials, OSError, ValueError) as error:
                # The old ones may still be good; if not, the next request fails and leads here again.
                logger.warning("credentials not renewed: %s", str(error) or type(error).__name__)

    async def _replace_sessions(self) -> None:
        """Open new sessions, then retire the old ones: files that are half written change nothing."""
        transport = _transport(self._configuration)
        old = (self._calls, self._watches)
        calls, watches = self._open_session(MAX_CONNECTIONS), self._open_session(UNLIMITED)
        self._calls, self._watches, self._transport = Pool(calls), Pool(watches), transport
        for pool in old:
            if pool is not None:
                await pool.retire()

    def _open_session(self, limit: int, *middlewares: aiohttp.ClientMiddlewareType) -> aiohttp.ClientSession:
        self._configuration.connection_pool_maxsize = limit
        self._configuration.client_session_kwargs = {
            "timeout": aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=CONNECT_SECONDS),
            # aiohttp itself would read the environment and ~/.netrc for each request.
            "trust_env": False,
            # The API server sets no cookies; a jar would be searched for each request.
            "cookie_jar": aiohttp.DummyCookieJar(),
            "proxy": self._configuration.proxy or environment_proxy(URL(self.server)),
            "middlewares": (*middlewares, partial(self._authorize, self.server)),
        }
        return _SessionFactory(self._configuration).open()

    async def _authorize(
        self, server: str, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Add the current credentials, and the name that the API server's certificate must hold.

        An old session may be of another server than the current configuration: it gets no credentials of that one.
        """
        if server == self.server:
            setting = (await self._configuration.auth_settings()).get("BearerToken")
            if setting is not None:
                request.headers["Authorization"] = (setting["value"] or "").strip()
            request.server_hostname = self._configuration.tls_server_name
        return await handler(request)


class Pool:
    """A session that, once retired, is closed with the end of its last request.

    Closing it earlier would cancel the tasks that wait for a connection.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self._requests = 0
        self._retired = False

    async def __aenter__(self) -> aiohttp.ClientSession:
        self._requests += 1
        return self.session

    async def __aexit__(self, *exception: object) -> None:
        self._requests -= 1
        await self._close_unused()

    async def retire(self) -> None:
        """Close the session as soon as it is unused."""
        self._retired = True
        await self._close_unused()

    async def _close_unused(self) -> None:
        if self._retired and self._requests == 0:
            await self.session.close()


class _SessionFactory(RESTClientObject):
    """TLS context and buffer sizes of ``kubernetes.aio``, for a session without its requests."""

    def open(self) -> aiohttp.ClientSession:
        return self._create_pool_manager()


class _KubeConfigLoader(KubeConfigLoader):
    """A loader that refreshes OIDC tokens over verified TLS, and fails where a plugin fails.

    The library's own never verifies the issuer, and fails where the kubeconfig names the issuer's authority. Without
    credentials of its plugin it goes on without any.
    """

    async def load_from_exec_plugin(self) -> bool:
        if not await super().load_from_exec_plugin():  # type: ignore[no-untyped-call]
            raise ConfigException("the exec plugin gave no credentials; the log says why")
        return True

    async def _refresh_oidc(self, provider: Any) -> None:
        config = provider["config"]
        if "refresh-token" not in config:
            raise ConfigException("oidc: the ID token has expired and there is no refresh token")
        authority = self._retrieve_oidc_cacert(provider)  # type: ignore[no-untyped-call]
        requestor = _VerifyingRequestor(  # type: ignore[no-untyped-call]
            config["client-id"],
            config.safe_get("client-secret") or "",
            config["idp-issuer-url"],
            authority.decode() if authority else None,
        )
        tokens = await requestor.refresh_token(config["refresh-token"])  # type: ignore[no-untyped-call]
        config.value["id-token"] = tokens["id_token"]
        config.value["refresh-token"] = tokens.get("refresh_token", config["refresh-token"])


class _VerifyingRequestor(OpenIDRequestor):
    """A requestor whose fourth argument is the issuer's authority as PEM text; None for the system's."""

    def _client_session(self) -> aiohttp.ClientSession:
        basic = aiohttp.encode_basic_auth(self._client_id, self._client_secret)
        return aiohttp.ClientSession(
            headers=self._default_headers | {"Authorization": basic},
            connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=self._ssl_ca_cert)),
            raise_for_status=True,
            trust_env=True,
        )


def bounded_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, bounded: a proxy may ask for any number. The API server never sends a date."""
    return min(asked, LONGEST_RETRY_AFTER_SECONDS) if (asked := _retry_after(headers)) is not None else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None


async def _refuse_long_waits(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    response = await handler(request)
    asked = _retry_after(response.headers)
    if asked is not None and asked > LONGEST_RETRY_AFTER_SECONDS:
        response.close()
        raise aiohttp.ClientConnectionError(f"{response.status}: the server asks for a wait of {asked:.0f} s")
    return response


def _kubeconfig_paths() -> list[str]:
    paths = os.environ.get("KUBECONFIG") or "~/.kube/config"
    return [os.path.expanduser(path) for path in paths.split(os.pathsep) if path]


def environment_proxy(server: URL) -> str | None:
    """The proxy of ``HTTPS_PROXY``, unless ``NO_PROXY`` has the server's name, domain, address or network.

    The cluster's own API server is never behind one, whatever a platform puts into all pods.
    """
    proxies, host = urllib.request.getproxies(), server.host or ""
    if host == os.environ.get("KUBERNETES_SERVICE_HOST") or urllib.request.proxy_bypass(host):
        return None
    for entry in proxies.get("no", "").split(","):
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip(), strict=False):
                return None
    return proxies.get(server.scheme)


def _transport(configuration: Configuration) -> tuple[object, ...]:
    """Settings of connections; when they change, new sessions are opened."""
    files = (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file)
    return (
        configuration.host,
        configuration.proxy,
        configuration.verify_ssl,
        configuration.tls_server_name,
        *(path and _stamp(path) for path in files),
    )


def _stamp(path: str) -> tuple[object, ...]:
    """Identity of a file's content, empty without a file; follows the links by which the kubelet replaces files."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return path, status.st_ino, status.st_mtime_ns, status.st_size


def _opened(pool: Pool | None) -> Pool:
    if pool is None:
        raise RuntimeError("the connection is used inside `async with` only")
    return pool
