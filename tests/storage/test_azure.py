"""Azure Blob Storage: every way to log in, what is told of a wrong one, and what its listings say."""

import base64
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from servers.azure_storage import ACCOUNT, ACCOUNT_KEY, SERVICE_ACCOUNT_TOKEN, AzureAccount
from servers.storage_servers import BUCKET

from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.uris import parse_uri
from tunesmith_storage.download import read_whole
from tunesmith_storage.errors import StorageError, StorageRefused, StorageUnavailable
from tunesmith_storage.mirror import Mirror
from tunesmith_storage.remote import Entry
from tunesmith_storage.stores import open_remote

Mount = Callable[[dict[str, str]], Path]
DATA = b"weights" * 1000


@pytest.fixture
def uri() -> str:
    """A folder of the container that no other test uses."""
    return f"az://{BUCKET}/{uuid.uuid4().hex}"


def store_and_read(uri: str, secrets: Path) -> bytes:
    """What comes back of a file that is stored."""
    bucket = open_remote(parse_uri(uri), ["output"], secrets)
    Mirror(parse_uri(uri), secrets, ["output"], secrets).write("file", DATA)
    return read_whole(bucket, bucket.entries()["file"])


def refusal(uri: str, secrets: Path) -> StorageError:
    """How the store refuses to be listed."""
    with pytest.raises(StorageError) as caught:
        open_remote(parse_uri(uri), ["output"], secrets).entries()
    printed = "".join(traceback.format_exception(caught.value))
    assert ACCOUNT_KEY not in printed
    assert SERVICE_ACCOUNT_TOKEN not in printed
    return caught.value


def test_the_key_of_the_account(azure: AzureAccount, secrets: Mount, uri: str) -> None:
    assert store_and_read(uri, secrets(azure.secret())) == DATA


def test_a_connection_string(azure: AzureAccount, secrets: Mount, uri: str) -> None:
    keys = {"AZURE_STORAGE_CONNECTION_STRING": azure.connection_string()}
    keys["AZURE_CA_BUNDLE"] = azure.authority.read_text()
    assert store_and_read(uri, secrets(keys)) == DATA


def test_a_connection_string_with_a_shared_access_signature(
    azure: AzureAccount, secrets: Mount, uri: str
) -> None:
    text = f"AccountName={ACCOUNT};BlobEndpoint={azure.endpoint}/;SharedAccessSignature={azure.sas_token()}"
    keys = {"AZURE_STORAGE_CONNECTION_STRING": text, "AZURE_CA_BUNDLE": azure.authority.read_text()}
    assert store_and_read(uri, secrets(keys)) == DATA


@pytest.mark.parametrize("with_string", [True, False])
def test_variables_of_a_laptop(
    azure: AzureAccount, secrets: Mount, uri: str, monkeypatch: pytest.MonkeyPatch, with_string: bool
) -> None:
    keys = azure.secret()
    authority = {"AZURE_CA_BUNDLE": keys.pop("AZURE_CA_BUNDLE")}
    variables = {"AZURE_STORAGE_CONNECTION_STRING": azure.connection_string()} if with_string else keys
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert store_and_read(uri, secrets(authority)) == DATA


@pytest.mark.parametrize("before", ["", "?"])
def test_a_shared_access_signature_counts_more_than_the_identity_of_the_pod(
    azure: AzureAccount,
    secrets: Mount,
    uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: str,
) -> None:
    """The portal shows the signature with a question mark, its command line without."""
    for name, value in azure.pod_environment(tmp_path / "no-token").items():
        monkeypatch.setenv(name, value)
    keys = azure.identity_secret() | {"AZURE_STORAGE_SAS_TOKEN": before + azure.sas_token()}
    assert store_and_read(uri, secrets(keys)) == DATA


def test_the_identity_of_the_pod(
    azure: AzureAccount, secrets: Mount, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text(SERVICE_ACCOUNT_TOKEN)
    for name, value in azure.pod_environment(token).items():
        monkeypatch.setenv(name, value)
    assert store_and_read(uri, secrets(azure.identity_secret())) == DATA


def test_an_identity_that_nobody_trusts(
    azure: AzureAccount, secrets: Mount, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("another ServiceAccount's")
    for name, value in azure.pod_environment(token).items():
        monkeypatch.setenv(name, value)
    error = refusal(uri, secrets(azure.identity_secret()))
    assert error.category is FailureCategory.USER_ERROR
    assert "Microsoft Entra refuses the identity (AADSTS700213)" in error.message
    assert uri in error.message


OTHER_KEY = base64.b64encode(b"another key").decode()
REFUSALS = {
    "wrong key": ({"AZURE_STORAGE_ACCOUNT_KEY": OTHER_KEY}, "AZURE_STORAGE_ACCOUNT_KEY"),
    "no key at all": (
        {"AZURE_STORAGE_ACCOUNT_KEY": "not base64!"},
        "the Secret for output can't be used for az://",
    ),
    "no account": (
        {"AZURE_STORAGE_ACCOUNT_NAME": ""},
        "add AZURE_STORAGE_ACCOUNT_NAME to the Secret for output",
    ),
    "half a principal": ({"AZURE_CLIENT_SECRET": "x"}, "add AZURE_TENANT_ID"),
    "no connection string": (
        {"AZURE_STORAGE_CONNECTION_STRING": "UseDevelopmentStorage=true"},
        "AZURE_STORAGE_CONNECTION_STRING of the Secret for output names no storage account",
    ),
}


@pytest.mark.parametrize(("change", "expected"), REFUSALS.values(), ids=REFUSALS)
def test_a_wrong_key(
    azure: AzureAccount, secrets: Mount, uri: str, change: dict[str, str], expected: str
) -> None:
    error = refusal(uri, secrets(azure.secret() | change))
    assert expected in error.message
    assert error.category is FailureCategory.USER_ERROR


def test_a_signature_without_the_right_to_list(azure: AzureAccount, secrets: Mount, uri: str) -> None:
    error = refusal(uri, secrets(azure.identity_secret() | {"AZURE_STORAGE_SAS_TOKEN": azure.sas_token("r")}))
    assert (error.reason, error.category) == ("AccessDenied", FailureCategory.USER_ERROR)
    assert "SAS token" in error.message


def test_a_signature_that_has_ended(azure: AzureAccount, secrets: Mount, uri: str) -> None:
    ended = {"AZURE_STORAGE_SAS_TOKEN": azure.sas_token(hours=-1)}
    error = refusal(uri, secrets(azure.identity_secret() | ended))
    assert (error.reason, error.category) == ("AccessDenied", FailureCategory.USER_ERROR)
    assert "AZURE_STORAGE_SAS_TOKEN" in error.message or "SAS token" in error.message


def test_a_container_that_does_not_exist(azure: AzureAccount, secrets: Mount) -> None:
    error = refusal("az://no-such-container/x", secrets(azure.secret()))
    assert error.reason == "BucketNotFound"
    assert "the container no-such-container does not exist" in error.message


def test_an_account_that_does_not_exist(secrets: Mount, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name has no address; the network may be at fault as well, so it is tried again."""
    monkeypatch.setattr("tunesmith_storage.buckets._RETRIES", {"max_retries": 0})
    keys = {"AZURE_STORAGE_ACCOUNT_NAME": "nosuch.invalid", "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY}
    keys["AZURE_STORAGE_ENDPOINT"] = "https://nosuch.invalid"
    error = refusal(f"az://{BUCKET}/x", secrets(keys))
    assert isinstance(error, StorageUnavailable)
    assert "is AZURE_STORAGE_ACCOUNT_NAME right?" in error.message


def test_a_secret_for_another_store(secrets: Mount) -> None:
    with pytest.raises(
        StorageRefused, match="no key that opens az://: add one of AZURE_STORAGE_ACCOUNT_NAME"
    ):
        open_remote(parse_uri(f"az://{BUCKET}/x"), ["output"], secrets({"AWS_ACCESS_KEY_ID": "x"}))


def test_a_large_file_goes_in_blocks(
    azure: AzureAccount, secrets: Mount, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith_storage.buckets._MIN_PART_BYTES", 256 * 1024)
    root = secrets(azure.secret())
    (tmp_path / "large").write_bytes(bytes(range(256)) * 4096)
    mirror = Mirror(parse_uri(uri), tmp_path, ["output"], root)
    mirror.push("large")
    other = Mirror(parse_uri(uri), tmp_path / "other", ["output"], root)
    other.pull("large")
    assert (tmp_path / "other/large").read_bytes() == (tmp_path / "large").read_bytes()


def test_a_file_is_the_same_file_listed_and_looked_up(azure: AzureAccount, secrets: Mount, uri: str) -> None:
    """The revision of a model is a digest over these identities."""
    root = secrets(azure.secret())
    Mirror(parse_uri(uri), root, ["output"], root).write("file", DATA)
    listed: Entry = open_remote(parse_uri(uri), ["output"], root).entries()["file"]
    named = open_remote(parse_uri(f"{uri}/file"), ["output"], root).entries()[""]
    assert listed.identity == named.identity


def test_a_file_that_is_replaced_while_it_is_read_is_noticed(
    azure: AzureAccount, secrets: Mount, uri: str
) -> None:
    root = secrets(azure.secret())
    mirror = Mirror(parse_uri(uri), root, ["output"], root)
    mirror.write("file", DATA)
    bucket = open_remote(parse_uri(uri), ["output"], root)
    entry = bucket.entries()["file"]
    mirror.write("file", DATA[::-1])
    with pytest.raises(StorageUnavailable):
        read_whole(bucket, entry)
