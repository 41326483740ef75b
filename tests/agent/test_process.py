"""The agent as a process: settings, signals, a full disk, crowds."""

import asyncio
import json
import resource
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from agents.agent_harness import Storage
from agents.agent_process import FILES, AgentProcess, agent_process
from agents.fake_engine import FakeEngine
from agents.wire import ASK, post

from tunesmith_agent.http.limits import Limits
from tunesmith_agent.settings import parse_settings
from tunesmith_contract.agent import DesiredAlias

#: Bytes of the largest file on a disk that is full.
ROOM = 32 * 1024
SLOW_READERS = 40
PIECE = 256 * 1024
MOST_BYTES = 96 * 1024**2


async def test_sigterm_ends_it_with_zero(engine: FakeEngine, tmp_path: Path) -> None:
    async with asyncio.timeout(30), agent_process(engine, tmp_path) as agent:
        process = agent.process
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (FILES[1], FILES[1])
        assert (await agent.monitored("/healthz"))[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        rest = (await process.stderr.read()).splitlines()
        assert [json.loads(line)["message"] for line in rest][-1] == "draining"
        assert await process.wait() == 0


async def test_answer_of_a_killed_agent_does_not_look_whole(engine: FakeEngine, tmp_path: Path) -> None:
    """Not even to a client of HTTP/1.0, whose answers end with the connection."""
    engine.pieces.put_nowait(b"data: one\n\n")
    async with asyncio.timeout(30), agent_process(engine, tmp_path) as agent:
        reader, writer = await asyncio.open_connection("127.0.0.1", agent.port)
        request = post({**ASK, "model": "base", "stream": True})
        writer.write(request.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        await reader.readuntil(b"data: one\n\n")
        agent.process.kill()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.transport.abort()
        await agent.process.wait()


async def test_a_full_disk_concerns_what_is_copied_alone(engine: FakeEngine, tmp_path: Path) -> None:
    """What is served goes on, and the copy is made once there is room."""
    storage = Storage(tmp_path / "mnt")
    small, large = storage.commit(), storage.commit(note="x" * 2 * ROOM)
    first, second = DesiredAlias(name="first", stable=small), DesiredAlias(name="second", stable=large)
    async with asyncio.timeout(60), agent_process(engine, tmp_path, file_bytes=ROOM) as agent:
        agent.want(1, first, second)
        await agent.until_monitored("/metrics", 'loads_total{alias="first",result="Active"}')
        await agent.until_monitored("/metrics", 'loads_total{alias="second",result="ScratchFull"}')
        body = {"model": "first", "messages": []}
        url = f"http://127.0.0.1:{agent.port}/v1/chat/completions"
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
            assert answer.status == 200
        assert (await agent.monitored("/readyz"))[0] == 200
        resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        await agent.until_monitored("/metrics", 'loads_total{alias="second",result="Active"} 1.0')


async def test_a_full_disk_from_the_start_keeps_nothing_from_being_served(
    engine: FakeEngine, tmp_path: Path
) -> None:
    """The state can't be kept, and the operator's goes on being applied."""
    storage = Storage(tmp_path / "mnt")
    async with asyncio.timeout(60), agent_process(engine, tmp_path, file_bytes=0) as agent:
        version = storage.commit()
        agent.want(1, DesiredAlias(name="first", stable=version))
        await agent.until_monitored("/metrics", 'loads_total{alias="first",result="ScratchFull"}')
        resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        await agent.until_monitored("/readyz", "ready")


async def open_socket(agent: AgentProcess, stack: AsyncExitStack) -> socket.socket:
    """A connection that is read by nobody."""
    client = socket.socket()
    stack.callback(client.close)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", agent.port))
    return client


async def test_crowds_of_one_client_keep_no_other_waiting(engine: FakeEngine, tmp_path: Path) -> None:
    """A thousand idle connections, and clients that read nothing of long answers."""
    async with (
        asyncio.timeout(60),
        agent_process(engine, tmp_path, "--stall-seconds=1") as agent,
        AsyncExitStack() as stack,
    ):
        agent.want(1)
        await agent.until_monitored("/readyz", "ready\n")
        before = agent.resident_bytes
        for _ in range(1000):
            await open_socket(agent, stack)
        for _ in range(SLOW_READERS * 40):
            engine.pieces.put_nowait(b"x" * PIECE)
        for _ in range(SLOW_READERS):
            client = await open_socket(agent, stack)
            stream = post({**ASK, "model": "base", "stream": True})
            await asyncio.get_running_loop().sock_sendall(client, stream)
        base = {**ASK, "model": "base"}
        for address in ("127.0.0.2", "127.0.0.1"):
            connector = aiohttp.TCPConnector(local_addr=(address, 0), force_close=True)
            async with aiohttp.ClientSession(connector=connector) as session:
                url = f"http://127.0.0.1:{agent.port}/v1/chat/completions"
                for _ in range(50):
                    async with session.post(url, json=base) as answer:
                        assert answer.status == 200
        for path in ("/healthz", "/readyz"):
            assert (await agent.monitored(path))[0] == 200
        # Of a long answer no more is held than the engine's buffers: the rest waits in the engine.
        assert agent.resident_bytes - before < MOST_BYTES
        await engine.left.wait()


def test_arguments_win_over_the_environment() -> None:
    environment = {"POD_NAME": "pod", "TUNESMITH_BASE_MODEL": "smol", "TUNESMITH_DEPLOYMENT": ""}
    settings = parse_settings(["--base-model=base", "--drain-seconds=3"], environment)
    assert (settings.pod_name, settings.base_model, settings.drain_seconds) == ("pod", "base", 3.0)
    assert parse_settings([], {"TUNESMITH_PROOF_TOLERANCE": "0.2"}).proof_tolerance == 0.2


def test_limits_are_arguments() -> None:
    limits = parse_settings(["--connections=5", "--read-seconds=1.5"], {}).limits
    assert (limits.connections, limits.read_seconds) == (5, 1.5)
    assert limits.body_bytes == Limits().body_bytes


def test_unknown_argument(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_settings(["--token=x"], {})
    assert "unrecognized arguments" in capsys.readouterr().err
