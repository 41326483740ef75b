"""Several operators on a real control plane: one leads, another takes over, none acts without its lease."""

import asyncio
import itertools
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from agents.agent_harness import Running, Storage, running_agent
from agents.fake_engine import FakeEngine
from control_plane.operator_process import operator_process
from control_plane.pod_credentials import issue_token, read_authority
from control_plane.served_jobs import children, create_job, install_crds
from simulation.serving_world import build_adapter

from tunesmith_cluster.client import eventually
from tunesmith_cluster.fake import ControlPlane
from tunesmith_contract.agent import Version
from tunesmith_contract.layout import CA_FILE, TOKEN_AUDIENCE, TOKEN_FILE

LEASE_SECONDS = 15.0


@pytest.fixture(scope="module")
def server(control_plane: ControlPlane) -> ControlPlane:
    """The API server with our three kinds established."""
    install_crds(control_plane)
    return control_plane


async def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for something outside this process, without holding up its agent."""
    await asyncio.to_thread(eventually, condition, seconds, what="a change")


def lead_to(host_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the operator's Service leads to this machine."""
    resolve = socket.getaddrinfo

    def find(host: Any, *arguments: Any, **named: Any) -> Any:
        return resolve("127.0.0.1" if host == host_name else host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", find)


@asynccontextmanager
async def forwarding(*ports: int) -> AsyncIterator[int]:
    """A Service of these ports: each connection goes to the next one, whether it answers or not."""
    following = itertools.cycle(ports)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", next(following))
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    listener = await asyncio.start_server(connect, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()


def begin_serving(server: ControlPlane, namespace: str, version: Version) -> dict[str, Any]:
    """Apply an AdapterDeployment with this version as alias ``x``; its pod once it runs."""
    adapter = build_adapter("x", name="x", source={"uri": version.uri, "digest": version.digest})
    spec = {
        "baseModel": {"uri": "pvc://models/base"},
        "engine": {"gpus": 1},
        "artifactVolumes": [{"claim": "artifacts"}],
        "adapters": [adapter],
    }
    body = {"apiVersion": "tunesmith.dev/v1alpha1", "kind": "AdapterDeployment", "metadata": {"name": "ad"}}
    server.apply(body | {"spec": spec}, namespace)
    return server.wait_for_pod(namespace, "tunesmith.dev/stage=serving", timeout=60)


def is_stable(running: Running, version: Version) -> bool:
    """True once the operator has told the agent that all requests are this version's."""
    desired = running.agent.store.current
    return desired is not None and [alias.stable for alias in desired.aliases] == [version]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_another_replica_takes_over(server: ControlPlane, tmp_path: Path, number: int) -> None:
    system, namespace = server.namespace("system"), server.namespace("kernel")
    scope = {"namespace": system, "watch_namespaces": namespace}
    with (
        operator_process(server.kubeconfig, tmp_path, "first", **scope) as first,
        operator_process(server.kubeconfig, tmp_path, "second", **scope) as second,
    ):
        first.wait_ready()
        second.wait_ready()
        eventually(lambda: first.is_leading() or second.is_leading(), what="a leader")
        leader, standby = (first, second) if first.is_leading() else (second, first)
        assert not standby.is_leading()
        assert standby.read("/readyz")[0] == standby.read("/livez")[0] == 200
        assert leader.stop(number) == (0 if number == signal.SIGTERM else -number)
        job = create_job(server, namespace)
        patience = 5.0 if number == signal.SIGTERM else LEASE_SECONDS + 10
        eventually(standby.is_leading, patience, what="the other replica's lead")
        eventually(lambda: children(server, job), what="the first Job")
        assert standby.stop() == 0


def test_other_namespaces_are_left_alone(server: ControlPlane, tmp_path: Path) -> None:
    system, mine, other = (server.namespace(prefix) for prefix in ("system", "mine", "other"))
    with operator_process(server.kubeconfig, tmp_path, namespace=system, watch_namespaces=mine) as process:
        process.wait_leading()
        ignored, served = create_job(server, other), create_job(server, mine)
        eventually(lambda: children(server, served), what="the first Job")
        assert not children(server, ignored)
        assert process.read("/livez")[0] == 200


def test_a_leader_that_loses_its_lease_ends_itself(server: ControlPlane, tmp_path: Path) -> None:
    system = server.namespace("system")
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{system}/leases/tunesmith"
    with operator_process(server.kubeconfig, tmp_path, namespace=system, watch_namespaces=system) as process:
        process.wait_leading()
        server.api.merge(lease, {"spec": {"holderIdentity": "usurper"}})
        assert process.process.wait(LEASE_SECONDS) == 1
    assert "usurper leads now" in process.log.read_text()
    assert server.api.get(lease)["spec"]["holderIdentity"] == "usurper"


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    """What the agent finds on loopback."""
    engine = FakeEngine()
    await engine.start()
    yield engine
    await engine.stop()


async def test_agents_find_the_replica_that_took_over_and_serve_meanwhile(
    server: ControlPlane, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, namespace = server.namespace("system"), server.namespace("serving")
    for claim in ("artifacts", "models"):
        server.add_volume(namespace, claim, tmp_path, "gpu-0")
    scope = {"namespace": system, "watch_namespaces": namespace}
    storage = Storage(tmp_path / "storage")
    version = storage.commit()
    host_name = f"tunesmith.{system}.svc"
    lead_to(host_name, monkeypatch)
    with ExitStack() as stack:
        first = stack.enter_context(operator_process(server.kubeconfig, tmp_path, "first", **scope))
        await asyncio.to_thread(first.wait_leading)
        second = stack.enter_context(operator_process(server.kubeconfig, tmp_path, "second", **scope))
        await asyncio.to_thread(second.wait_ready)
        pod = await asyncio.to_thread(begin_serving, server, namespace, version)
        (storage.root / TOKEN_FILE).write_text(
            await asyncio.to_thread(issue_token, server, pod, TOKEN_AUDIENCE)
        )
        (storage.root / CA_FILE).write_text(await asyncio.to_thread(read_authority, server, system))
        async with (
            forwarding(first.tls_port, second.tls_port) as port,
            running_agent(
                engine, storage.root, seconds=60, operator_url=f"https://{host_name}:{port}", namespace=namespace,
                deployment="ad", pod_name=pod["metadata"]["name"], pod_uid=pod["metadata"]["uid"],
            ) as running,
            aiohttp.ClientSession(running.url) as clients,
        ):  # fmt: skip
            await running.active(version)
            await until(lambda: is_stable(running, version), 20)
            first.stop(signal.SIGKILL)
            await until(lambda: not running.agent.metrics.operator_connected, 20)
            assert not second.is_leading()
            body = {"model": "x", "messages": [{"role": "user", "content": "hello"}]}
            async with clients.post("/v1/chat/completions", json=body) as answer:
                assert answer.status == 200
            await until(second.is_leading, LEASE_SECONDS + 15)
            await until(lambda: running.agent.metrics.operator_connected, 10)
