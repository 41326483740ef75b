"""Downloads of folders and files without a manifest, such as base models and data sets."""

from collections.abc import Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from tunesmith_contract.base import canonical_json, sha256_digest
from tunesmith_contract.layout import MANIFEST_FILE

from .artifacts import read_manifest
from .download import fetch_entry, in_parallel, locked
from .errors import NotFound, StorageUnavailable
from .files import write_atomically
from .remote import Entry, Remote

WEIGHTS = "*.safetensors"
_HEADER_LENGTH_BYTES = 8
_LONGEST_HEADER_BYTES = 100_000_000


def fetch_file(remote: Remote, root: Path) -> Path:
    """Download the one file that a URI names into a folder named by the file's revision.

    Raises:
        NotFound: the URI names nothing, or a folder.
    """
    entries = remote.entries()
    if len(entries) != 1:
        problem = "is a folder" if entries else "does not exist"
        raise NotFound("FileNotFound", f"{remote.uri} {problem}: write the URI of a file")
    (entry,) = entries.values()
    folder = root / tree_revision(entries).replace(":", "-")
    target = folder / Path(entry.path or remote.uri.path).name
    with locked(folder):
        if not target.is_file():
            fetch_entry(remote, entry, target)
    return target


def fetch_tree(
    remote: Remote, root: Path, patterns: Sequence[str], *, outlines: bool = False, holds_rows: bool = False
) -> Path:
    """Download the matching files directly below a URI into a folder named by the tree's revision.

    Where the tree is an artifact, its revision is the artifact's digest, and its files are verified.

    Args:
        patterns: shell patterns of file names.
        holds_rows: the files are a data set: a manifest beside them is not an artifact's.
        outlines: download only the headers of weight files, which hold their shapes, into a folder of their own.
    """
    all_entries = remote.entries()
    entries = {
        path: entry
        for path, entry in all_entries.items()
        if "/" not in path and any(fnmatch(path, pattern) for pattern in patterns)
    }
    revision, digests = tree_revision(entries), dict[str, str]()
    if MANIFEST_FILE in all_entries and not holds_rows:
        manifest = read_manifest(remote, all_entries)
        revision, digests = manifest.digest, {file.path: file.sha256 for file in manifest.files}
    folder = root / ("outlines" if outlines else "whole") / revision.replace(":", "-")

    def fetch(entry: Entry) -> None:
        target = folder / entry.path
        if target.is_file():
            return
        if outlines and fnmatch(entry.path, WEIGHTS):
            write_atomically(target, _read_header(remote, entry))
        else:
            fetch_entry(remote, entry, target, digests.get(entry.path))

    with locked(folder):
        in_parallel(partial(fetch, entry) for entry in entries.values())
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def tree_revision(entries: dict[str, Entry]) -> str:
    """Digest over paths, sizes and identities of files; it changes whenever their bytes do."""
    described = {path: [entry.size_bytes, entry.identity] for path, entry in entries.items()}
    return sha256_digest(canonical_json(described))


def _read_header(remote: Remote, entry: Entry) -> bytes:
    """Bytes of a safetensors file up to its first tensor."""
    data, needed = b"", _HEADER_LENGTH_BYTES
    for chunk in remote.read(entry):
        data += chunk
        if needed == _HEADER_LENGTH_BYTES and len(data) >= needed:
            needed += int.from_bytes(data[:_HEADER_LENGTH_BYTES], "little")
        if needed > _LONGEST_HEADER_BYTES or len(data) >= needed > _HEADER_LENGTH_BYTES:
            break
    if needed > _LONGEST_HEADER_BYTES or len(data) < needed:
        raise StorageUnavailable("ModelDamaged", f"{entry.path} in {remote.uri} is damaged: store it again")
    return data[:needed]
