"""What every kind of store can do, and how a URI is opened."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tunesmith_contract.artifact import File
from tunesmith_contract.layout import SECRETS_DIR
from tunesmith_contract.uris import Scheme, StorageUri

from .credentials import load_credentials
from .errors import StorageRefused


@dataclass(frozen=True, slots=True)
class Entry:
    """One file in a store.

    Attributes:
        path: relative to the URI; empty for the very thing that the URI names.
        size_bytes: its size.
        identity: changes whenever its bytes do: an entity tag, a generation or a digest.
        sha256: its digest, where the store itself knows it.
    """

    path: str
    size_bytes: int
    identity: str
    sha256: str | None = None


class Remote(Protocol):
    """What lies at one URI.

    Every method raises StorageError.
    """

    @property
    def uri(self) -> StorageUri:
        """What was opened."""

    def entries(self) -> dict[str, Entry]:
        """All files at and below the URI, by their path."""

    def read(self, entry: Entry, offset: int = 0) -> Iterator[bytes]:
        """The bytes of a file from an offset on, in chunks."""

    def publish(self, folder: Path, files: Sequence[File], manifest: bytes) -> None:
        """Store an artefact that is not there yet, or not whole: its files first, its manifest last.

        Files that are there already are not sent again; each is verified in the store.
        """


def open_remote(
    uri: StorageUri, roles: Sequence[str], secrets: Path = Path(SECRETS_DIR), *, holds_rows: bool = False
) -> Remote:
    """Open a URI that is not mounted, with the first Secret that is there for one of the roles.

    Args:
        holds_rows: a hub keeps data sets apart from models.

    Raises:
        StorageRefused: the Secret lacks a key, or the URI is mounted.
    """
    credentials = load_credentials(roles, secrets)
    match uri.scheme:
        case Scheme.S3 | Scheme.GS:
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
