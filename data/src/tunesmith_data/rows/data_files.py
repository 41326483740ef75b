"""Data files of a folder or pattern, selected by name."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from tunesmith_data.failures import DataError

#: A file may be compressed whatever its name is; see ``compression``.
PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip")
TEXT_SUFFIXES = (".txt", ".text")
MARKDOWN_SUFFIXES = (".md", ".markdown")
DATA_SUFFIXES = (
    *(".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"),
    *TEXT_SUFFIXES,
    *MARKDOWN_SUFFIXES,
)
#: Files beside data in exports of a hub, of Spark, of an archive.
_OTHER_FILES = (
    ".*",
    "_*",
    "readme*",
    "license*",
    "licence*",
    "dataset_info*.json",
    "state.json",
    "manifest.json",
)
_SHOWN_NAMES = 5


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of rows.

    Attributes:
        path: path of the file.
        name: name in findings.
    """

    path: Path
    name: str


def find_files(path: Path, called: str | None = None) -> list[DataFile]:
    """Data files in a folder, or matching a pattern with ``*`` in its last part, sorted by name.

    Files of a folder count if their suffix is known; files in subfolders do not.

    Args:
        path: the folder, or the pattern.
        called: name in messages.

    Raises:
        DataError: there are none; the message lists what is there.
    """
    called = called or str(path)
    folder, pattern = (path, "*") if path.is_dir() else (path.parent, path.name)
    if not folder.is_dir():
        raise DataError("DatasetNotFound", f"{called} does not exist: write the URI of a file or a folder")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    matching = [name for name in names if fnmatchcase(name, pattern) and is_data_file(name)]
    if not matching:
        there = (f"{entry.name}/" if entry.is_dir() else entry.name for entry in folder.iterdir())
        raise DataError("DatasetNotFound", f"{called} {describe_names(there)}")
    return [DataFile(folder / name, name) for name in matching]


def is_data_file(name: str) -> bool:
    """True if a file's name is that of a data file."""
    lower = name.lower()
    if any(fnmatchcase(lower, other) for other in _OTHER_FILES):
        return False
    return unpacked_name(lower).endswith(DATA_SUFFIXES) or lower.endswith(".zip")


def data_patterns() -> list[str]:
    """Shell patterns that match the names of data files."""
    return ["*.zip", *(f"*{suffix}{packed}" for suffix in DATA_SUFFIXES for packed in ("", *PACKED_SUFFIXES))]


def unpacked_name(name: str) -> str:
    """A file's name in lower case, without the suffix of its compression."""
    lower = name.lower()
    return next((lower.removesuffix(suffix) for suffix in PACKED_SUFFIXES if lower.endswith(suffix)), lower)


def is_text_file(name: str) -> bool:
    """True if a file's name is that of a text file."""
    return unpacked_name(name).endswith((*TEXT_SUFFIXES, *MARKDOWN_SUFFIXES))


def name_some(names: Sequence[str]) -> str:
    """The first few names, as a phrase."""
    shown = ", ".join(names[:_SHOWN_NAMES])
    rest = len(names) - _SHOWN_NAMES
    return f"{shown} and {rest:,} more" if rest > 0 else shown or "nothing"


def describe_names(paths: Iterable[str]) -> str:
    """Message about a folder or pattern without data files.

    Args:
        paths: existing files; of those in subfolders, the folder is named.
    """
    names = sorted({name + slash for name, slash, _ in (path.partition("/") for path in paths)})
    content = f"there are {name_some(names)}" if names else "nothing is there"
    return (
        f"has no data files ({content}): name a file, or a folder of files, that end in {', '.join(DATA_SUFFIXES)}, or "
        f"in one of them and {', '.join(PACKED_SUFFIXES)}"
    )
