"""Choice of the store's client for a storage URI."""

from collections.abc import Sequence
from pathlib import Path

from tunesmith_contract.layout import SECRETS_DIR
from tunesmith_contract.uris import Scheme, StorageUri

from .credentials import load_credentials
from .errors import StorageRefused
from .remote import Remote


def open_remote(
    uri: StorageUri, roles: Sequence[str], secrets: Path = Path(SECRETS_DIR), *, holds_rows: bool = False
) -> Remote:
    """Client of the store that holds an unmounted URI, opened with the first Secret mounted for one of the roles.

    Args:
        holds_rows: the URI names a data set, which a hub keeps apart from models.

    Raises:
        StorageRefused: the Secret lacks a key, or the URI is mounted.
    """
    credentials = load_credentials(roles, secrets)
    # The libraries of the stores take memory and seconds to import: only the one in use is.
    match uri.scheme:
        case Scheme.S3 | Scheme.GS | Scheme.AZ:
            from .buckets import Bucket

            return Bucket(uri, credentials)
        case Scheme.OCI:
            from .registry import Repository

            return Repository(uri, credentials)
        case Scheme.HF:
            from .hub import HubFolder

            return HubFolder(uri, credentials, "dataset" if holds_rows else "model")
        case _:
            raise StorageRefused("InvalidUri", f"{uri} is mounted into pods, not fetched")
