"""Interface of a store's client, and its description of a file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tunesmith_contract.artifact import File
from tunesmith_contract.uris import StorageUri


@dataclass(frozen=True, slots=True)
class Entry:
    """One file in a store.

    Attributes:
        path: relative to the URI; empty for the object that the URI itself names.
        size_bytes: its size.
        identity: changes whenever its bytes do: an entity tag, a generation or a digest.
        sha256: its digest, where the store itself reports it.
    """

    path: str
    size_bytes: int
    identity: str
    sha256: str | None = None


class Remote(Protocol):
    """Files at one URI of a store.

    Every method raises StorageError.
    """

    @property
    def uri(self) -> StorageUri:
        """URI that was opened."""

    def entries(self) -> dict[str, Entry]:
        """All files at and below the URI, by their path."""

    def read(self, entry: Entry, offset: int = 0) -> Iterator[bytes]:
        """Bytes of a file from an offset on, in chunks."""

    def publish(self, folder: Path, files: Sequence[File], manifest: bytes) -> None:
        """Store an artifact that is absent or incomplete: its files first, its manifest last.

        Files that the store has already are not sent again; each is verified in the store.
        """
