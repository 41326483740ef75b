"""Adapters from a bucket: fetched to the pod's own disk with the mounted Secret, and kept there while there is room."""

import hashlib
from collections.abc import AsyncIterator
from io import BufferedReader
from pathlib import Path

import pytest
from agents.agent_harness import Running, Storage, running_agent
from agents.fake_engine import FakeEngine
from servers.storage_servers import BUCKET, S3Server

from tunesmith_contract.agent import DesiredAlias, LoadState, Version
from tunesmith_contract.uris import parse_uri
from tunesmith_storage.artifacts import publish_artifact
from tunesmith_storage.stores import open_remote


@pytest.fixture
def secrets(s3: S3Server, tmp_path: Path) -> Path:
    folder = tmp_path / "secrets/artifacts"
    folder.mkdir(parents=True)
    for name, value in s3.secret().items():
        (folder / name).write_text(value)
    return folder


@pytest.fixture
async def agent(engine: FakeEngine, secrets: Path, tmp_path: Path) -> AsyncIterator[Running]:
    cache = tmp_path / "cache"
    async with running_agent(engine, tmp_path, secrets_dir=secrets.parent, cache_dir=cache) as running:
        yield running


def publish(storage: Storage, secrets: Path, version: Version) -> Version:
    """The same version in the bucket."""
    uri = f"s3://{BUCKET}/sha256/{version.digest.removeprefix('sha256:')}"
    publish_artifact(open_remote(parse_uri(uri), ["artifacts"], secrets.parent), storage.folder(version))
    return version.model_copy(update={"uri": uri})


async def test_an_adapter_is_fetched_and_served(
    agent: Running, storage: Storage, secrets: Path, tmp_path: Path
) -> None:
    first, second = (publish(storage, secrets, storage.commit()) for _ in range(2))
    agent.want(DesiredAlias(name="a", stable=first), DesiredAlias(name="b", stable=first))
    await agent.active(first)
    fetched = tmp_path / "cache" / first.digest.replace(":", "-")
    assert (fetched / "adapter_model.safetensors").read_bytes() == b"weights"
    agent.want(DesiredAlias(name="a", stable=second), DesiredAlias(name="b", stable=first))
    await agent.active(second)
    await agent.until(lambda: len(agent.agent.reconciler.report("boot").versions) == 2)
    assert fetched.exists()
    agent.want(DesiredAlias(name="a", stable=second))
    await agent.until(lambda: agent.state(first) is None)
    assert fetched.exists()


async def test_another_artifact_than_the_digest_says_is_refused(
    agent: Running, storage: Storage, secrets: Path
) -> None:
    first, second = (publish(storage, secrets, storage.commit()) for _ in range(2))
    exchanged = first.model_copy(update={"uri": second.uri})
    agent.want(DesiredAlias(name="a", stable=exchanged))
    assert await agent.failed(exchanged) == "ArtifactChanged"
    assert agent.engine.loads == []


async def test_a_mended_secret_is_taken_up(agent: Running, storage: Storage, secrets: Path) -> None:
    version = publish(storage, secrets, storage.commit())
    key = secrets / "AWS_SECRET_ACCESS_KEY"
    right = key.read_text()
    key.write_text("wrong")
    agent.want(DesiredAlias(name="a", stable=version))
    assert await agent.failed(version) == "AccessDenied"
    key.write_text(right)
    await agent.until(lambda: agent.state(version) is LoadState.ACTIVE)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose digest was computed, in order."""
    names: list[str] = []
    file_digest = hashlib.file_digest

    def record(stream: BufferedReader, algorithm: str) -> object:
        names.append(Path(stream.name).name)
        return file_digest(stream, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", record)
    return names


async def test_a_fetched_artifact_is_read_once(
    agent: Running, storage: Storage, secrets: Path, hashed: list[str]
) -> None:
    version = publish(storage, secrets, storage.commit())
    hashed.clear()
    agent.want(DesiredAlias(name="a", stable=version))
    await agent.active(version)
    # The bytes are hashed as they come.
    assert hashed == []


@pytest.mark.parametrize("damage", [b"weight2", b"short", None], ids=["changed", "short", "missing"])
async def test_an_earlier_copy_that_is_damaged_is_fetched_anew(
    engine: FakeEngine, storage: Storage, secrets: Path, tmp_path: Path, damage: bytes | None
) -> None:
    version = publish(storage, secrets, storage.commit())
    cache = tmp_path / "cache"
    file = cache / version.digest.replace(":", "-") / "adapter_model.safetensors"
    alias = DesiredAlias(name="a", stable=version)
    async with running_agent(engine, tmp_path, secrets_dir=secrets.parent, cache_dir=cache) as running:
        running.want(alias)
        await running.active(version)
    file.parent.chmod(0o755)
    file.chmod(0o644)
    file.unlink() if damage is None else file.write_bytes(damage)
    async with running_agent(engine, tmp_path, secrets_dir=secrets.parent, cache_dir=cache) as running:
        running.want(alias)
        await running.active(version)
    assert file.read_bytes() == b"weights"


async def test_a_complete_copy_is_used_while_the_store_is_away(
    engine: FakeEngine, storage: Storage, secrets: Path, tmp_path: Path
) -> None:
    version = publish(storage, secrets, storage.commit())
    alias = DesiredAlias(name="a", stable=version)
    cache = tmp_path / "cache"
    async with running_agent(engine, tmp_path, secrets_dir=secrets.parent, cache_dir=cache) as running:
        running.want(alias)
        await running.active(version)
    (secrets / "AWS_ENDPOINT_URL").write_text("http://127.0.0.1:1")
    await engine.restart()
    async with running_agent(engine, tmp_path, secrets_dir=secrets.parent, cache_dir=cache) as running:
        running.want(alias)
        await running.active(version)
