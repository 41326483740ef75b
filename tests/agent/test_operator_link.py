"""Connection to the operator: TLS, token, reports, pushed states, reconnection."""

import asyncio
import datetime
import ipaddress
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from agents.agent_harness import Storage, running_agent
from agents.fake_engine import FakeEngine
from agents.scripted_operator import NAME, NAMESPACE, ScriptedOperator
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tenacity import RetryCallState

from tunesmith_agent.control import operator_link
from tunesmith_contract.agent import DesiredAlias, SentState


def write_certificate(folder: Path) -> None:
    """A self-signed certificate of 127.0.0.1 (``ca.crt``) and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "operator")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36500))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "ca.crt").write_bytes(certificate.public_bytes(pem))
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[ScriptedOperator]:
    write_certificate(tmp_path)
    (tmp_path / "token").write_text("first\n")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "ca.crt", tmp_path / "key.pem")
    operator = ScriptedOperator(context)
    await operator.start()
    yield operator
    await operator.stop()


async def test_pushed_state_is_applied_and_reported(
    engine: FakeEngine,
    storage: Storage,
    operator: ScriptedOperator,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    version = storage.commit()
    settings: dict[str, Any] = {
        "operator_url": f"https://127.0.0.1:{operator.port}", "namespace": NAMESPACE, "deployment": NAME,
        "pod_name": "pod", "pod_uid": "uid", "credentials_dir": tmp_path,
    }  # fmt: skip
    async with running_agent(engine, storage.root, **settings) as running:
        first = await operator.report(0)
        assert (first.pod_name, first.pod_uid, first.applied_generation) == ("pod", "uid", 0)
        alias = DesiredAlias(name="a", stable=version)
        state = SentState(generation=3, aliases=(alias,), peer_key="key-of-the-agents")
        await operator.sockets[0].send_str(state.to_json())
        await running.active(version)
        report = await operator.report(3)
        while report.versions[0].state != "Active":
            report = await operator.report(3)
        assert report.versions[0].digest == version.digest
        assert running.agent.directory.key == b"key-of-the-agents"

        # The operator goes away: serving goes on, and the token is read again for the next connection.
        (tmp_path / "token").write_text("second\n")
        await operator.stop()
        await operator.start()
        again = await operator.report(3)
        assert again.boot_id == report.boot_id
        assert operator.tokens == ["Bearer first", "Bearer second"]
    assert "key-of-the-agents" not in caplog.text
    assert all("key-of-the-agents" not in str(vars(record)) for record in caplog.records)


async def test_another_authority_is_not_trusted(
    engine: FakeEngine,
    storage: Storage,
    operator: ScriptedOperator,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_certificate(other)
    (other / "token").write_text("secret-token")
    url = f"https://127.0.0.1:{operator.port}"
    async with running_agent(engine, storage.root, operator_url=url, credentials_dir=other) as running:
        async with asyncio.timeout(10):
            while "operator not reachable" not in caplog.text:  # noqa: ASYNC110 - a log has no event
                await asyncio.sleep(0)
        assert not running.agent.metrics.operator_connected
    assert operator.tokens == []
    assert "secret-token" not in caplog.text


async def test_pauses_are_short_again_after_a_connection(
    engine: FakeEngine,
    storage: Storage,
    operator: ScriptedOperator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts: asyncio.Queue[int] = asyncio.Queue()

    def wait(state: RetryCallState) -> float:
        attempts.put_nowait(state.attempt_number)
        return 0.01

    monkeypatch.setattr(operator_link, "RECONNECT_WAIT", wait)
    settings: dict[str, Any] = {
        "operator_url": f"https://127.0.0.1:{operator.port}", "namespace": NAMESPACE, "deployment": NAME,
        "credentials_dir": tmp_path,
    }  # fmt: skip
    async with running_agent(engine, storage.root, **settings), asyncio.timeout(10):
        await operator.report(0)
        await operator.stop()
        assert [await attempts.get() for _ in range(3)] == [1, 2, 3]
        await operator.start()
        while not operator.sockets:  # noqa: ASYNC110 - a server has no event for its first client
            await asyncio.sleep(0)
        while not attempts.empty():
            attempts.get_nowait()
        await operator.stop()
        assert [await attempts.get() for _ in range(2)] == [1, 2]
        await operator.start()
