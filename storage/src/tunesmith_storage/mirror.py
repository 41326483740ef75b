"""A local folder kept as a bucket has it: pods work on their own disk, and lose nothing when they go."""

from collections.abc import Collection, Iterable
from functools import partial
from pathlib import Path

from tunesmith_contract.layout import SECRETS_DIR
from tunesmith_contract.uris import Scheme, StorageUri

from .buckets import Bucket
from .credentials import load_credentials
from .download import fetch_entry, in_parallel, read_whole
from .errors import StorageRefused
from .files import file_digest, files_below, stream_digest
from .remote import Entry


class Mirror:
    """One folder of a bucket, and its copy on disk; paths are relative to both, and every method raises StorageError.

    Args:
        uri: a folder of a bucket.
        root: where its copy lies.
        roles: whose Secret opens it, the first that is there.

    Raises:
        StorageRefused: the URI is no bucket's.
    """

    def __init__(
        self, uri: StorageUri, root: Path, roles: Iterable[str], secrets: Path = Path(SECRETS_DIR)
    ) -> None:
        if uri.scheme not in (Scheme.S3, Scheme.GS):
            message = f"work files can't lie at {uri}: write a workspace of pvc://, s3:// or gs://"
            raise StorageRefused("WorkspaceNeeded", message)
        self.root = root
        self._bucket = Bucket(uri, load_credentials(roles, secrets))

    def entries(self, below: str = "") -> dict[str, Entry]:
        """What the bucket holds in a folder, by paths relative to the mirror."""
        found = self._bucket.entries()
        return {path: entry for path, entry in found.items() if path.startswith(f"{below}/" if below else "")}

    def push(self, path: str, last: str | None = None) -> None:
        """Upload a file, or what a folder holds; files that the bucket has are not sent again.

        Args:
            last: the name of the file that declares the folder whole; it is sent when the others are there.
        """
        local = self.root / path
        files = sorted(files_below(local)) if local.is_dir() else [local]
        known = self.entries()
        first = [file for file in files if file.name != last]
        in_parallel(partial(self._upload, file, known) for file in first)
        for file in files:
            if file.name == last:
                self._upload(file, known)

    def pull(self, path: str) -> None:
        """Bring a file, or what a folder of the bucket holds, to disk."""
        found = self.entries()
        wanted = [entry for name, entry in found.items() if name == path or name.startswith(f"{path}/")]
        in_parallel(partial(self._download, entry) for entry in wanted)

    def read(self, path: str) -> bytes | None:
        """A small file of the bucket; None where there is none."""
        entry = self.entries().get(path)
        return read_whole(self._bucket, entry) if entry else None

    def write(self, path: str, data: bytes) -> None:
        """Store a small file in the bucket alone."""
        self._bucket.upload(path, data)

    def delete(self, below: str, first: Collection[str] = ()) -> None:
        """Remove what a folder of the bucket holds.

        Args:
            first: names of files that declare a folder whole; without them nothing looks whole while it goes.
        """
        paths = list(self.entries(below))
        self._bucket.delete([path for path in paths if Path(path).name in first])
        self._bucket.delete([path for path in paths if Path(path).name not in first])

    def _upload(self, file: Path, known: dict[str, Entry]) -> None:
        path = file.relative_to(self.root).as_posix()
        entry = known.get(path)
        if entry and entry.size_bytes == file.stat().st_size and self._is_same(entry, file):
            return
        self._bucket.upload(path, file)

    def _download(self, entry: Entry) -> None:
        local = self.root / entry.path
        if not (local.is_file() and local.stat().st_size == entry.size_bytes and self._is_same(entry, local)):
            fetch_entry(self._bucket, entry, local)

    def _is_same(self, entry: Entry, file: Path) -> bool:
        return stream_digest(self._bucket.read(entry)) == file_digest(file)
