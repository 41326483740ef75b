"""Two-way copy between a local folder and a folder of a bucket, for work files that outlive a pod."""

from collections.abc import Collection, Iterable
from functools import partial
from pathlib import Path

from tunesmith_contract.artifact import File
from tunesmith_contract.layout import SECRETS_DIR
from tunesmith_contract.uris import BUCKETS, StorageUri

from .buckets import Bucket, Version
from .credentials import load_credentials
from .download import fetch_entry, fetch_files, in_parallel, read_whole
from .errors import StorageRefused
from .files import file_digest, files_below, stream_digest
from .remote import Entry


class Mirror:
    """One folder of a bucket and its local copy; paths are relative to both, and every method raises StorageError.

    Args:
        uri: a folder of a bucket.
        root: the local copy.
        roles: the first Secret that is mounted for one of them opens the bucket.

    Raises:
        StorageRefused: the URI is not in a bucket.
    """

    def __init__(
        self, uri: StorageUri, root: Path, roles: Iterable[str], secrets: Path = Path(SECRETS_DIR)
    ) -> None:
        if uri.scheme not in BUCKETS:
            message = f"work files can't lie at {uri}: write a workspace of pvc://, s3://, gs:// or az://"
            raise StorageRefused("WorkspaceNeeded", message)
        self.root = root
        self._bucket = Bucket(uri, load_credentials(roles, secrets))

    def entries(self, below: str = "") -> dict[str, Entry]:
        """Files of the bucket below a folder, by paths relative to the mirror."""
        prefix = f"{below}/" if below else ""
        return {path: entry for path, entry in self._bucket.entries().items() if path.startswith(prefix)}

    def push(self, path: str, last: str | None = None, *, without_last: bool = False) -> None:
        """Upload a file, or all files of a folder; those that the bucket has already are not sent again.

        Args:
            last: name of the file that marks the folder as complete; it is sent after the others.
            without_last: leave that file to another caller.
        """
        local = self.root / path
        files = sorted(files_below(local)) if local.is_dir() else [local]
        stored = self.entries()
        first = [file for file in files if file.name != last]
        in_parallel(partial(self._upload, file, stored) for file in first)
        for file in () if without_last else files:
            if file.name == last:
                self._upload(file, stored)

    def pull(self, path: str) -> None:
        """Download a file, or all files of a folder."""
        entries = self.entries()
        wanted = [entry for name, entry in entries.items() if name == path or name.startswith(f"{path}/")]
        in_parallel(partial(self._download, entry) for entry in wanted)

    def read(self, path: str) -> bytes | None:
        """Bytes of a small file of the bucket; None where it does not exist."""
        entry = self.entries().get(path)
        return read_whole(self._bucket, entry) if entry else None

    def write(self, path: str, data: bytes) -> None:
        """Write a small file to the bucket only."""
        self._bucket.upload(path, data)

    def read_current(self, path: str) -> tuple[bytes, Version] | None:
        """Bytes of a small file of the bucket with their version; None where it does not exist."""
        return self._bucket.read_current(path)

    def write_if(self, path: str, data: bytes, version: Version | None) -> bool:
        """Write a small file to the bucket only, unless another writer came before; false if one did.

        Args:
            version: of the file that is replaced; None if there must be none.
        """
        return self._bucket.write_if(path, data, version)

    def fetch(self, folder: str, files: Iterable[File]) -> None:
        """Download those files of a folder that the local copy lacks, and compare them with their digests."""
        entries = {path.removeprefix(f"{folder}/"): entry for path, entry in self.entries(folder).items()}
        fetch_files(self._bucket, entries, files, self.root / folder)

    def delete(self, below: str, first: Collection[str] = ()) -> None:
        """Remove all files of a folder of the bucket.

        Args:
            first: names of files that mark a folder as complete; removed first, so that no partial folder looks whole.
        """
        paths = list(self.entries(below))
        self._bucket.delete([path for path in paths if Path(path).name in first])
        self._bucket.delete([path for path in paths if Path(path).name not in first])

    def _upload(self, file: Path, stored: dict[str, Entry]) -> None:
        path = file.relative_to(self.root).as_posix()
        entry = stored.get(path)
        if entry and entry.size_bytes == file.stat().st_size and self._is_same(entry, file):
            return
        self._bucket.upload(path, file)

    def _download(self, entry: Entry) -> None:
        local = self.root / entry.path
        if not (local.is_file() and local.stat().st_size == entry.size_bytes and self._is_same(entry, local)):
            fetch_entry(self._bucket, entry, local)

    def _is_same(self, entry: Entry, file: Path) -> bool:
        return stream_digest(self._bucket.read(entry)) == file_digest(file)
