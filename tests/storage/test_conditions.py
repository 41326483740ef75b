"""Writing on condition that nobody else wrote meanwhile, as leases need it, in every kind of bucket."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError
from servers.storage_servers import BUCKET, S3Server

from tunesmith_contract.uris import parse_uri
from tunesmith_storage.mirror import Mirror

Mount = Callable[[dict[str, str]], Path]


@pytest.fixture(params=["s3", "gs", "az"])
def mirror(request: pytest.FixtureRequest, secrets: Mount, tmp_path: Path) -> Mirror:
    """A new folder of a bucket."""
    match request.param:
        case "s3":
            keys = request.getfixturevalue("s3").secret()
        case "gs":
            keys = {"credentials.json": request.getfixturevalue("gcs_account")}
        case _:
            keys = request.getfixturevalue("azure").secret()
    uri = parse_uri(f"{request.param}://{BUCKET}/{uuid.uuid4().hex}")
    return Mirror(uri, tmp_path, ["output"], secrets(keys))


def test_the_first_of_two_writers_wins(mirror: Mirror) -> None:
    assert mirror.read_current("lease") is None
    assert mirror.write_if("lease", b"first", None)
    assert not mirror.write_if("lease", b"second", None)
    current = mirror.read_current("lease")
    assert current is not None and current[0] == b"first"
    assert mirror.write_if("lease", b"third", current[1])
    assert not mirror.write_if("lease", b"fourth", current[1])
    assert mirror.read("lease") == b"third"


def test_what_was_stored_though_the_answer_was_lost_counts(mirror: Mirror) -> None:
    """The library tries again, and the store refuses the second try."""
    assert mirror.write_if("lease", b"own", None)
    assert mirror.write_if("lease", b"own", None)


def test_a_store_without_conditions_still_stores(
    s3: S3Server, secrets: Mount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = obstore.put

    def refuse(*args: Any, mode: Any = None, **options: Any) -> Any:
        if mode is not None:
            raise GenericError("Server returned error response: <Error><Code>NotImplemented</Code></Error>")
        return put(*args, **options)

    monkeypatch.setattr(obstore, "put", refuse)
    uri = parse_uri(f"s3://{BUCKET}/{uuid.uuid4().hex}")
    mirror = Mirror(uri, tmp_path, ["output"], secrets(s3.secret()))
    assert mirror.write_if("lease", b"first", None)
    assert mirror.read("lease") == b"first"
