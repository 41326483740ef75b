"""Credentials, TLS, proxies and connection pools against local servers."""

import asyncio
import base64
import json
import shutil
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiohttp import web
from api_server.api_connections import (
    connection_to,
    exec_plugin,
    proxying,
    server_context,
    serving,
    write_kubeconfig,
    write_plugin_answer,
)
from api_server.fake_api import FakeClock
from kubernetes.aio.config import incluster_config
from yarl import URL

from tunesmith.controller_runtime.client import Client
from tunesmith.controller_runtime.connection import (
    MAX_CONNECTIONS,
    REREAD_SECONDS,
    Connection,
    NoCredentials,
    environment_proxy,
)
from tunesmith.controller_runtime.errors import Retryable
from tunesmith.controller_runtime.index import ChildIndex
from tunesmith.controller_runtime.metrics import Metrics
from tunesmith.process.loop_thread import LoopThread
from tunesmith_cluster.certificates import Authority

FAR, PAST = "2999-01-01T00:00:00Z", "2001-01-01T00:00:00Z"


class ApiServer:
    """Answers with an empty object; remembers each request's credentials and closes every connection.

    ``accepted`` is the one Authorization header that it does not reject; None for any.
    """

    def __init__(self) -> None:
        self.headers: list[str | None] = []
        self.clients: list[str] = []
        self.accepted: str | None = None

    async def answer(self, request: web.Request) -> web.Response:
        header = request.headers.get("Authorization")
        self.headers.append(header)
        if request.transport is not None and (peer := request.transport.get_extra_info("peercert")):
            self.clients += [value for ((name, value),) in peer["subject"] if name == "commonName"]
        status = 401 if self.accepted not in (None, header) else 200
        return web.json_response({}, status=status, headers={"Connection": "close"})


@pytest.fixture(autouse=True)
def outside_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBERNETES_SERVICE_HOST", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


@asynccontextmanager
async def connected(clock: FakeClock | None = None) -> AsyncIterator[Client]:
    connection = Connection(clock=clock or FakeClock())
    async with Client(connection, Metrics(), ChildIndex(lambda uid: None)) as client:
        yield client


def write(path: Path, text: str) -> None:
    path.write_text(text)


def encoded(path: str) -> str:
    return base64.b64encode(Path(path).read_bytes()).decode()


async def call(client: Client) -> Any:
    return await client.get("v1", "Pod", "ns", "a")


async def test_many_watches_leave_connections_for_calls() -> None:
    opened = asyncio.Semaphore(0)

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return web.json_response({})
        response = web.StreamResponse()
        await response.prepare(request)
        opened.release()
        await asyncio.Event().wait()
        return response

    async def watch(client: Client) -> None:
        async for _ in client.watch("v1", "Pod", None, 1):
            pass

    async with (
        serving(answer) as url,
        Client(connection_to(url), Metrics(), ChildIndex(lambda uid: None)) as client,
        asyncio.timeout(20),
    ):
        watches = [asyncio.create_task(watch(client)) for _ in range(MAX_CONNECTIONS + 1)]
        for _ in watches:
            await opened.acquire()
        assert await client.get("coordination.k8s.io/v1", "Lease", "ns", "lease") == {}
        for task in watches:
            task.cancel()
        await asyncio.gather(*watches, return_exceptions=True)


def issue(folder: Path, *hosts: str) -> Authority:
    """A new authority that has signed a server's and a client's certificate."""
    authority = Authority(folder)
    authority.issue("server", "server", hosts=hosts)
    authority.issue("client", "client")
    return authority


@pytest.fixture
def service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a pod's credentials."""
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "token").write_text("one")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(folder / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(folder / "ca.crt"))
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    return folder


def enter_pod(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host, _, port = url.removeprefix("https://").rpartition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host.strip("[]"))
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)


async def test_a_service_accounts_token_is_read_again(
    service_account: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, clock, authority = ApiServer(), FakeClock(), issue(tmp_path / "ca", "127.0.0.1")
    shutil.copy(authority.path("ca"), service_account / "ca.crt")
    async with serving(server.answer, server_context(authority, "server")) as url:
        enter_pod(url, monkeypatch)
        async with connected(clock) as client:
            await call(client)
            (service_account / "token").write_text("two")
            await call(client)
            clock.advance(REREAD_SECONDS)
            await call(client)
            (service_account / "token").write_text("three")
            server.accepted = "bearer three"
            with pytest.raises(Retryable):
                await call(client)
            await call(client)
    assert server.headers == [f"bearer {token}" for token in ("one", "one", "two", "two", "three")]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="the kernel has no IPv6")
async def test_an_api_server_with_an_address_of_ipv6(
    service_account: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a proxy is set for everything else."""
    server, authority = ApiServer(), issue(tmp_path / "ca", "::1")
    shutil.copy(authority.path("ca"), service_account / "ca.crt")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "10.96.0.0/16,::1/128")
    async with serving(server.answer, server_context(authority, "server"), host="::1") as url:
        assert url.startswith("https://[::1]:")
        enter_pod(url, monkeypatch)
        async with connected() as client:
            await call(client)
    assert server.headers == ["bearer one"]


async def test_a_new_authority_is_trusted_after_one_failed_call(
    service_account: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = issue(tmp_path / "old", "127.0.0.1"), issue(tmp_path / "new", "127.0.0.1")
    shutil.copy(old.path("ca"), service_account / "ca.crt")
    server, context = ApiServer(), server_context(old, "server")
    async with serving(server.answer, context) as url:
        enter_pod(url, monkeypatch)
        async with connected() as client:
            await call(client)
            context.load_cert_chain(new.path("server"), new.path("server", "key"))
            shutil.copy(new.path("ca"), service_account / "ca.crt")
            with pytest.raises(Retryable, match="ClientConnectorCertificateError"):
                await call(client)
            await call(client)


async def test_a_new_client_certificate_is_used_within_a_minute(tmp_path: Path, kubeconfig: Path) -> None:
    server, clock, authority = ApiServer(), FakeClock(), issue(tmp_path / "ca", "127.0.0.1")
    files = {"client-certificate": authority.path("client"), "client-key": authority.path("client", "key")}
    async with serving(server.answer, server_context(authority, "server", authority.path("ca"))) as url:
        write_kubeconfig(kubeconfig, {"server": url, "certificate-authority": authority.path("ca")}, files)
        async with connected(clock) as client:
            await call(client)
            authority.issue("client", "renewed")
            clock.advance(REREAD_SECONDS)
            await call(client)
    assert server.clients == ["client", "renewed"]


async def test_requests_on_replaced_sessions_run_to_their_end(tmp_path: Path, kubeconfig: Path) -> None:
    server, clock, authority = ApiServer(), FakeClock(), issue(tmp_path / "ca", "127.0.0.1")
    opened, rotated = asyncio.Semaphore(0), asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/pods/a"):
            return await server.answer(request)
        response = web.StreamResponse()
        await response.prepare(request)
        opened.release()
        await rotated.wait()
        event = {"type": "ADDED", "object": {"metadata": {"name": "late"}}}
        await response.write(json.dumps(event if "watch" in request.query else {}).encode() + b"\n")
        return response

    async def watch(client: Client) -> list[str]:
        return [body["metadata"]["name"] async for _, body in client.watch("v1", "Pod", None, 1)]

    files = {"client-certificate": authority.path("client"), "client-key": authority.path("client", "key")}
    async with serving(answer, server_context(authority, "server", authority.path("ca"))) as url:
        write_kubeconfig(kubeconfig, {"server": url, "certificate-authority": authority.path("ca")}, files)
        async with connected(clock) as client, asyncio.timeout(20):
            watching = asyncio.create_task(watch(client))
            # More than the pool holds: some wait for a connection.
            calls = [
                asyncio.create_task(client.get("v1", "Pod", "ns", "slow")) for _ in range(MAX_CONNECTIONS + 5)
            ]
            for _ in range(MAX_CONNECTIONS + 1):
                await opened.acquire()
            authority.issue("client", "renewed")
            clock.advance(REREAD_SECONDS)
            await call(client)
            rotated.set()
            assert await asyncio.gather(*calls) == [{}] * (MAX_CONNECTIONS + 5)
            assert await watching == ["late"]
    assert server.clients == ["renewed"]


async def test_a_half_written_certificate_leaves_the_old_one_in_use(
    tmp_path: Path, kubeconfig: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server, clock, authority = ApiServer(), FakeClock(), issue(tmp_path / "ca", "127.0.0.1")
    files = {"client-certificate": authority.path("client"), "client-key": authority.path("client", "key")}
    async with serving(server.answer, server_context(authority, "server", authority.path("ca"))) as url:
        write_kubeconfig(kubeconfig, {"server": url, "certificate-authority": authority.path("ca")}, files)
        async with connected(clock) as client:
            write(Path(authority.path("client", "key")), "-----BEGIN")
            clock.advance(REREAD_SECONDS)
            await call(client)
            assert "credentials not renewed" in caplog.text
            authority.issue("client", "renewed")
            clock.advance(REREAD_SECONDS)
            await call(client)
    assert server.clients == ["client", "renewed"]


@pytest.mark.parametrize("by_proxy", [False, True])
async def test_the_certificate_may_hold_another_name(
    tmp_path: Path, kubeconfig: Path, by_proxy: bool
) -> None:
    authority = issue(tmp_path / "ca", "api.internal")
    async with (
        proxying() as proxy,
        serving(ApiServer().answer, server_context(authority, "server")) as url,
    ):
        cluster = {"server": url, "certificate-authority": authority.path("ca")}
        if by_proxy:
            cluster["proxy-url"] = proxy.url
        write_kubeconfig(kubeconfig, cluster)
        async with connected() as client:
            with pytest.raises(Retryable, match="CertificateError"):
                await call(client)
        write_kubeconfig(kubeconfig, cluster | {"tls-server-name": "api.internal"})
        connection = Connection()
        async with Client(connection, Metrics(), ChildIndex(lambda uid: None)) as client:
            assert await call(client) == {}
            async with await connection.new_session() as session, session.get(connection.server) as response:
                assert response.status == 200
    assert proxy.targets == ([url.removeprefix("https://")] * 3 if by_proxy else [])


async def test_the_environments_proxy_is_used(
    tmp_path: Path, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = issue(tmp_path / "ca", "127.0.0.1")
    async with (
        proxying() as proxy,
        serving(ApiServer().answer, server_context(authority, "server")) as url,
    ):
        write_kubeconfig(kubeconfig, {"server": url, "certificate-authority": authority.path("ca")})
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        async with connected() as client:
            await call(client)
        for exempted in ("127.0.0.1", "10.0.0.0/8, 127.0.0.0/8", ".svc,127.0.0.1/8"):
            monkeypatch.setenv("NO_PROXY", exempted)
            async with connected() as client:
                await call(client)
        monkeypatch.setenv("NO_PROXY", "10.0.0.0/8,.svc,localhost")
        async with connected() as client:
            await call(client)
    assert proxy.targets == [url.removeprefix("https://")] * 2


async def test_the_cluster_s_own_api_server_is_behind_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    assert environment_proxy(URL("https://10.96.0.1:443")) is None
    assert environment_proxy(URL("https://api.example:6443")) == "http://proxy.example:3128"


async def test_a_plugins_token_is_kept_until_it_expires_or_is_rejected(
    tmp_path: Path, kubeconfig: Path
) -> None:
    server, clock, runs = ApiServer(), FakeClock(), tmp_path / "runs"
    write_plugin_answer(tmp_path, "one", FAR)
    async with serving(server.answer) as url:
        write_kubeconfig(kubeconfig, {"server": url}, {"exec": exec_plugin(tmp_path)})
        async with connected(clock) as client:
            for _ in range(3):
                await call(client)
                clock.advance(REREAD_SECONDS)
            assert runs.read_text().splitlines() == ["run"]
            write_plugin_answer(tmp_path, "two", PAST)
            server.accepted = "Bearer two"
            with pytest.raises(Retryable):
                await call(client)
            await call(client)
            write_plugin_answer(tmp_path, "three", FAR)
            server.accepted = None
            clock.advance(REREAD_SECONDS)
            await call(client)
    assert server.headers == [f"Bearer {token}" for token in ("one", "one", "one", "one", "two", "three")]
    assert runs.read_text().splitlines() == ["run"] * 3


def test_a_plugin_runs_in_the_thread_of_the_lease(tmp_path: Path, kubeconfig: Path) -> None:
    """The main thread has a loop of another kind, as in the operator."""
    server = ApiServer()
    write_plugin_answer(tmp_path, "one", FAR)

    async def ask() -> None:
        async with serving(server.answer) as url:
            write_kubeconfig(kubeconfig, {"server": url}, {"exec": exec_plugin(tmp_path)})
            client = Client(Connection(), Metrics(), ChildIndex(lambda uid: None))
            async with LoopThread("lease") as thread, thread.opened(client):
                await thread.run(call(client))

    uvloop.run(ask())
    assert server.headers == ["Bearer one"]


async def test_a_failing_plugin_leaves_the_old_token_in_use(
    tmp_path: Path, kubeconfig: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server, clock = ApiServer(), FakeClock()
    write_plugin_answer(tmp_path, "one", PAST)
    async with serving(server.answer) as url:
        write_kubeconfig(kubeconfig, {"server": url}, {"exec": exec_plugin(tmp_path)})
        async with connected(clock) as client:
            (tmp_path / "answer").write_text("no JSON")
            clock.advance(REREAD_SECONDS)
            await call(client)
            server.accepted = "Bearer two"
            for _ in range(2):
                with pytest.raises(Retryable):
                    await call(client)
            write_plugin_answer(tmp_path, "two", FAR)
            await call(client)
        (tmp_path / "answer").unlink()
        with pytest.raises(NoCredentials, match="the exec plugin gave no credentials"):
            await connected().__aenter__()
    assert server.headers == ["Bearer one"] * 3 + ["Bearer two"]
    assert "failed to decode process output" in caplog.text


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    "text", ["", "[]", "5", "users: 5", "contexts: [5]", "current-context: gone", "clusters: null", "\x00"]
)
async def test_an_odd_kubeconfig_leaves_the_old_credentials_in_use(kubeconfig: Path, text: str) -> None:
    server, clock = ApiServer(), FakeClock()
    async with serving(server.answer) as url:
        write_kubeconfig(kubeconfig, {"server": url}, {"token": "one"})
        async with connected(clock) as client:
            write(kubeconfig, text)
            clock.advance(REREAD_SECONDS)
            assert await call(client) == {}
            remove(kubeconfig)
            clock.advance(REREAD_SECONDS)
            assert await call(client) == {}
            write_kubeconfig(kubeconfig, {"server": url}, {"token": "two"})
            clock.advance(REREAD_SECONDS)
            await call(client)
    assert server.headers == ["Bearer one", "Bearer one", "Bearer two"]


async def test_a_session_of_another_server_gets_no_credentials(kubeconfig: Path) -> None:
    old, new, clock = ApiServer(), ApiServer(), FakeClock()
    async with serving(old.answer) as old_url, serving(new.answer) as new_url:
        write_kubeconfig(kubeconfig, {"server": old_url}, {"token": "old"})
        connection = Connection(clock=clock)
        async with (
            Client(connection, Metrics(), ChildIndex(lambda uid: None)) as client,
            await connection.new_session() as session,
        ):
            write_kubeconfig(kubeconfig, {"server": new_url}, {"token": "new"})
            clock.advance(REREAD_SECONDS)
            await call(client)
            async with session.get(old_url) as response:
                assert response.status == 200
    assert (old.headers, new.headers) == ([None], ["Bearer new"])


def id_token(expires: int) -> str:
    claims = base64.b64encode(json.dumps({"exp": expires}).encode()).decode().rstrip("=")
    return f"e30.{claims}.signature"


@pytest.mark.parametrize("trusted", [True, False])
async def test_an_oidc_token_is_refreshed_by_a_verified_issuer_only(
    tmp_path: Path, kubeconfig: Path, trusted: bool
) -> None:
    server, authority, fresh = ApiServer(), issue(tmp_path / "ca", "127.0.0.1"), id_token(2**33)
    sent: list[Mapping[str, Any]] = []

    async def issuer(request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response({"token_endpoint": str(request.url.with_path("/token"))})
        sent.append(await request.post())
        return web.json_response({"id_token": fresh})

    async with (
        serving(server.answer) as url,
        serving(issuer, server_context(authority, "server")) as issuer_url,
    ):
        config = {"client-id": "operator", "idp-issuer-url": issuer_url, "id-token": id_token(1)}
        config["refresh-token"] = "secret"
        if trusted:
            config["idp-certificate-authority-data"] = encoded(authority.path("ca"))
        write_kubeconfig(kubeconfig, {"server": url}, {"auth-provider": {"name": "oidc", "config": config}})
        if not trusted:
            with pytest.raises(NoCredentials, match="certificate verify failed"):
                await connected().__aenter__()
            assert sent == []
            return
        async with connected() as client:
            await call(client)
    assert [form["refresh_token"] for form in sent] == ["secret"]
    assert server.headers == [f"Bearer {fresh}"]


async def test_missing_credentials_end_the_start_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    with pytest.raises(NoCredentials, match="run in a pod with a service account, or set KUBECONFIG"):
        await connected().__aenter__()


async def test_an_invalid_kubeconfig_is_named(kubeconfig: Path) -> None:
    write(kubeconfig, "current-context: [")
    with pytest.raises(NoCredentials, match=str(kubeconfig)):
        await connected().__aenter__()
