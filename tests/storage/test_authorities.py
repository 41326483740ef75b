"""Private certificate authorities: by the variables of all pods, and by a Secret's own key."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers.scripted_server import Reply, serve
from servers.storage_servers import Registry

from tunesmith.manifests.outbound import CA_VARIABLES
from tunesmith_cluster.certificates import Authority
from tunesmith_contract.uris import parse_uri
from tunesmith_storage.errors import StorageError
from tunesmith_storage.stores import open_remote

Mount = Callable[[dict[str, str]], Path]

#: Every HTTP library of storage, trainer and agent asks the server for something that is not there.
CLIENTS = """
import asyncio, json, sys, urllib.error, urllib.request
import aiohttp, httpx2, obstore, requests
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from obstore.store import S3Store

url = sys.argv[1]

def by_urllib():
    try:
        urllib.request.urlopen(url)
    except urllib.error.HTTPError as error:
        return error.code

async def by_aiohttp():
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status

def by_obstore():
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    store = S3Store("b", config={"aws_endpoint_url": url, **keys}, retry_config={"max_retries": 0})
    try:
        obstore.head(store, "x")
    except FileNotFoundError:
        return 404

def by_hub():
    try:
        HfApi(endpoint=url).model_info("a/b")
    except RepositoryNotFoundError:
        return 404

clients = {
    "urllib": by_urllib,
    "aiohttp": lambda: asyncio.run(by_aiohttp()),
    "httpx2": lambda: httpx2.get(url).status_code,
    "requests": lambda: requests.get(url).status_code,
    "obstore": by_obstore,
    "hub": by_hub,
}
def status(client):
    try:
        return client()
    except Exception as error:
        return type(error).__name__
print(json.dumps({name: status(client) for name, client in clients.items()}))
"""


@pytest.fixture(scope="module")
def private_server(authority: Authority) -> Iterator[str]:
    """URL of a server whose certificate only the private authority knows."""
    nothing = Reply(status=404, body=b"", headers={"X-Error-Code": "RepoNotFound"})
    with serve(lambda _: nothing, (authority.path("registry"), authority.path("registry", "key"))) as server:
        yield server.url


def ask_all(url: str, bundle: Path | None) -> dict[str, object]:
    """The status that each library got, or the name of its error."""
    others = {
        name: value
        for name, value in os.environ.items()
        if name not in CA_VARIABLES and not name.upper().endswith("_PROXY")
    }
    trusted = dict.fromkeys(CA_VARIABLES, str(bundle)) if bundle else {}
    command = [sys.executable, "-c", CLIENTS, url]
    result = subprocess.run(command, env=others | trusted, capture_output=True, text=True, check=True)
    answers: dict[str, object] = json.loads(result.stdout)
    return answers


def test_every_library_finds_the_authorities_of_all_pods(
    private_server: str, authority: Authority, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle.crt"
    public = Path("/etc/ssl/certs/ca-certificates.crt").read_text()
    bundle.write_text(f"{public}\n{Path(authority.path('ca')).read_text()}")
    answers = ask_all(private_server, bundle)
    assert answers == dict.fromkeys(answers, 404)
    refused = ask_all(private_server, None)
    assert refused.keys() == answers.keys()
    assert 404 not in refused.values()


def reason_of(registry: Registry, secrets: Path) -> str:
    """Why a repository that does not exist can't be read."""
    uri = parse_uri(f"oci://{registry.host}/{uuid.uuid4().hex}:tag")
    with pytest.raises(StorageError) as refused:
        open_remote(uri, ["output"], secrets).entries()
    return refused.value.reason


def test_the_authority_of_a_secret_wins_over_that_of_all_pods(
    registry: Registry,
    registry_secret: dict[str, str],
    authority: Authority,
    secrets: Mount,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = Authority(tmp_path / "other").path("ca")
    for name in CA_VARIABLES:
        monkeypatch.setenv(name, other)
    without = {**registry_secret, "ca.crt": ""}
    assert reason_of(registry, secrets(registry_secret)) == "ImageNotFound"
    assert reason_of(registry, secrets(without)) == "UntrustedCertificate"
    for name in CA_VARIABLES:
        monkeypatch.setenv(name, authority.path("ca"))
    assert reason_of(registry, secrets(without)) == "ImageNotFound"
