"""Servers for the whole session, and an artifact to send them."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers.azure_storage import AzureAccount, run_azure
from servers.google_storage import run_gcs
from servers.storage_servers import BUCKET, PASSWORD, USER, Registry, run_registry
from servers.storage_servers import open_registry as open_registry
from servers.storage_servers import s3 as s3

from tunesmith_cluster.certificates import Authority
from tunesmith_contract.artifact import Lineage, Manifest
from tunesmith_contract.layout import MANIFEST_FILE
from tunesmith_storage.files import describe_files

FILES = {
    "adapter_config.json": b'{"r": 8}',
    "adapter_model.safetensors": bytes(range(256)) * 5000,
    "nested/history.jsonl": b"{}\n" * 100,
}
ROLE = "output"


@pytest.fixture(autouse=True)
def no_ambient_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the tests' own Secrets opens anything."""
    ambient = [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "GCE_"))]
    for name in (*ambient, "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs the certificates of the servers."""
    authority = Authority(tmp_path_factory.mktemp("authority"))
    authority.issue("registry", "registry", hosts=["127.0.0.1"])
    return authority


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Registry]:
    """A registry over TLS that asks for a login."""
    folder = tmp_path_factory.mktemp("registry")
    certificate, key = authority.path("registry"), authority.path("registry", "key")
    with run_registry(folder, certificate, key, login=True) as server:
        yield server


@pytest.fixture(scope="session")
def gcs_account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The key file of a service account that opens Google's storage."""
    with run_gcs(tmp_path_factory.mktemp("gcs")) as account:
        yield account


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[AzureAccount]:
    """A storage account of Azure, over TLS."""
    with run_azure(tmp_path_factory.mktemp("azure"), authority) as account:
        yield account


@pytest.fixture
def registry_secret(authority: Authority) -> dict[str, str]:
    """The keys of a Secret that opens the registry."""
    return {"username": USER, "password": PASSWORD, "ca.crt": Path(authority.path("ca")).read_text()}


@pytest.fixture
def secrets(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """Mount a Secret for the role ``output``; the folder of all Secrets."""

    def mount(keys: dict[str, str]) -> Path:
        root = tmp_path / f"secrets-{uuid.uuid4().hex}"
        # As kubelet does it: the keys are links into a folder of the version.
        version = root / ROLE / "..2026_01_01"
        version.mkdir(parents=True)
        for name, value in keys.items():
            (version / name).write_text(value + "\n")
            (root / ROLE / name).symlink_to(version / name)
        return root

    return mount


@pytest.fixture
def artifact(tmp_path: Path) -> tuple[Path, str]:
    """An artifact's folder, new in every test, and its digest."""
    folder = tmp_path / "artifact"
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "README.md").write_text(uuid.uuid4().hex)
    lineage = Lineage(
        namespace="ns",
        job="job",
        uid="uid",
        base_model="pvc://models/base",
        base_model_revision="r",
        dataset_digest="sha256:" + "0" * 64,
        image="i",
        parameters={},
        versions={},
    )
    manifest = Manifest(files=describe_files(folder), lineage=lineage, probes=())
    (folder / MANIFEST_FILE).write_bytes(manifest.to_bytes())
    return folder, manifest.digest


@pytest.fixture
def bucket_uri() -> str:
    """A folder of the bucket that no other test uses."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"
