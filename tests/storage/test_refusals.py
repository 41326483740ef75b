"""Error messages of stores: they name the Secret and the key to correct, and hold no secret value."""

import base64
import json
import logging
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from servers.google_storage import key_file
from servers.ports import free_port
from servers.storage_servers import (
    BUCKET,
    PASSWORD,
    SECRET_KEY,
    USER,
    Registry,
    S3Server,
    run_registry,
)

from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.uris import parse_uri
from tunesmith_storage.credentials import load_credentials
from tunesmith_storage.errors import StorageError, StorageUnavailable
from tunesmith_storage.registry import find_login
from tunesmith_storage.stores import open_remote

Mount = Callable[[dict[str, str]], Path]


@pytest.fixture(autouse=True)
def no_secret_in_logs(caplog: pytest.LogCaptureFixture) -> object:
    """Whatever happens, logs hold no secret."""
    caplog.set_level(logging.DEBUG)
    yield
    assert SECRET_KEY not in caplog.text
    assert PASSWORD not in caplog.text


def refusal(uri: str, secrets: Path) -> StorageError:
    """How a store refuses to be listed."""
    with pytest.raises(StorageError) as caught:
        open_remote(parse_uri(uri), ["output"], secrets).entries()
    printed = "".join(traceback.format_exception(caught.value))
    assert SECRET_KEY not in printed
    assert PASSWORD not in printed
    return caught.value


S3_REFUSALS = {
    "unknown access key": (
        {"AWS_ACCESS_KEY_ID": "AKIAOTHER00000000000"},
        "AWS_ACCESS_KEY_ID of the Secret for output",
    ),
    "wrong secret key": (
        {"AWS_SECRET_ACCESS_KEY": "wrong"},
        "AWS_SECRET_ACCESS_KEY of the Secret for output",
    ),
    "wrong region": ({"AWS_REGION": "eu-central-7"}, "AWS_REGION in the Secret for output"),
    "no secret key": ({"AWS_SECRET_ACCESS_KEY": ""}, "add AWS_SECRET_ACCESS_KEY"),
    "no access key": ({"AWS_ACCESS_KEY_ID": ""}, "add AWS_ACCESS_KEY_ID"),
}


@pytest.mark.parametrize(("change", "expected"), S3_REFUSALS.values(), ids=S3_REFUSALS)
def test_a_wrong_key_of_a_bucket(s3: S3Server, secrets: Mount, change: dict[str, str], expected: str) -> None:
    error = refusal(f"s3://{BUCKET}/x", secrets(s3.secret() | change))
    assert expected in error.message
    assert error.category is FailureCategory.USER_ERROR


def test_a_bucket_that_does_not_exist(s3: S3Server, secrets: Mount) -> None:
    error = refusal("s3://no-such-bucket/x", secrets(s3.secret()))
    assert (error.reason, error.category) == ("BucketNotFound", FailureCategory.USER_ERROR)
    assert "no-such-bucket" in error.message


def test_a_server_that_does_not_answer_may_be_tried_again(
    s3: S3Server, secrets: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith_storage.buckets._RETRIES", {"max_retries": 1})
    nobody = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}
    error = refusal(f"s3://{BUCKET}/x", secrets(s3.secret() | nobody))
    assert isinstance(error, StorageUnavailable)
    assert error.retryable


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("s3", "AWS_ACCESS_KEY_ID"),
        ("gs", "credentials.json"),
        ("az", "AZURE_STORAGE_ACCOUNT_KEY"),
        ("oci", "username"),
        ("hf", "token"),
    ],
)
def test_a_secret_of_another_kind(secrets: Mount, scheme: str, expected: str) -> None:
    error = refusal(f"{scheme}://some-bucket/x", secrets({"unrelated": "x"}))
    assert error.reason == "CredentialsMissing"
    assert expected in error.message


def test_a_key_file_that_is_none(secrets: Mount) -> None:
    error = refusal(f"gs://{BUCKET}/x", secrets({"credentials.json": "{}"}))
    assert error.reason == "CredentialsInvalid"
    assert "credentials.json" in error.message


def test_a_key_file_of_somebody_else(gcs_account: str, secrets: Mount) -> None:
    other = key_file(
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
        json.loads(gcs_account)["gcs_base_url"],
    )
    error = refusal(f"gs://{BUCKET}/x", secrets({"credentials.json": other}))
    assert error.reason == "AccessDenied"
    assert "the Secret for output" in error.message


REGISTRY_REFUSALS = {
    "wrong password": ({"password": "wrong"}, "refuses username or password of the Secret for output"),
    "no password": ({"password": ""}, "add password"),
    "no authority": ({"ca.crt": ""}, "ca.crt to the Secret for output"),
}


@pytest.mark.parametrize(("change", "expected"), REGISTRY_REFUSALS.values(), ids=REGISTRY_REFUSALS)
def test_a_wrong_key_of_a_registry(
    registry: Registry, registry_secret: dict[str, str], secrets: Mount, change: dict[str, str], expected: str
) -> None:
    error = refusal(f"oci://{registry.host}/team/x:tag", secrets(registry_secret | change))
    assert expected in error.message
    assert error.category is FailureCategory.USER_ERROR


def test_a_registry_that_wants_a_login(
    registry: Registry, registry_secret: dict[str, str], secrets: Mount
) -> None:
    anonymous = {"ca.crt": registry_secret["ca.crt"]}
    error = refusal(f"oci://{registry.host}/team/x:tag", secrets(anonymous))
    assert error.category is FailureCategory.USER_ERROR
    assert "username" in error.message


def test_a_docker_configuration(registry: Registry, registry_secret: dict[str, str], secrets: Mount) -> None:
    authority = {"ca.crt": registry_secret["ca.crt"]}
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    good = json.dumps({"auths": {f"https://{registry.host}/v2/": {"auth": login}}})
    name = f"oci://{registry.host}/{uuid.uuid4().hex}:tag"
    assert refusal(name, secrets(authority | {".dockerconfigjson": good})).reason == "ImageNotFound"
    other = json.dumps({"auths": {"elsewhere.example": {"auth": login}}})
    error = refusal(name, secrets(authority | {".dockerconfigjson": other}))
    assert f"no entry for {registry.host} (it has elsewhere.example)" in error.message
    error = refusal(name, secrets(authority | {".dockerconfigjson": "{}"}))
    assert ".dockerconfigjson of the Secret for output is no Docker configuration" in error.message


def test_docker_hub_goes_by_its_other_name(secrets: Mount) -> None:
    config = json.dumps({"auths": {"https://index.docker.io/v1/": {"username": "u", "password": "p"}}})
    credentials = load_credentials(["output"], secrets({".dockerconfigjson": config}))
    assert find_login(credentials, "docker.io") == ("u", "p")


def test_passwords_do_not_travel_in_the_clear(tmp_path: Path, secrets: Mount) -> None:
    with run_registry(tmp_path / "registry", login=True) as plain:
        login = {"username": USER, "password": PASSWORD, "plainHTTP": "true"}
        error = refusal(f"oci://{plain.host}/x:tag", secrets(login))
    assert error.reason == "InsecureRegistry"
    assert "plainHTTP" in error.message


def test_the_first_secret_that_is_there_counts(secrets: Mount) -> None:
    root = secrets({"token": "t"})
    credentials = load_credentials(["workspace", "output"], root)
    assert (credentials.role, credentials.get("token")) == ("output", "t")
    assert not load_credentials(["workspace"], root).keys
