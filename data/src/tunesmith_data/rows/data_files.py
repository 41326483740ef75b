"""Which files hold data: told by their names."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from tunesmith_data.failures import DataError

#: A file may be compressed by any of them, whatever its name says; see ``compression``.
PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip")
TEXT_SUFFIXES = (".txt", ".text")
MARKDOWN_SUFFIXES = (".md", ".markdown")
DATA_SUFFIXES = (
    *(".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"),
    *TEXT_SUFFIXES,
    *MARKDOWN_SUFFIXES,
)
#: What lies beside data: in exports of a hub, of Spark, of an archive.
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
        path: where it lies.
        name: what findings call it.
    """

    path: Path
    name: str


def find_files(path: Path, called: str | None = None) -> list[DataFile]:
    """The data files that a folder holds, or that match a pattern with ``*`` in its last part, sorted by name.

    Files of a folder count where their suffix is known; what lies in folders below doesn't.

    Args:
        path: the folder, or the pattern.
        called: what messages call it.

    Raises:
        DataError: there are none; the message says what is there.
    """
    called = called or str(path)
    folder, pattern = (path, "*") if path.is_dir() else (path.parent, path.name)
    if not folder.is_dir():
        raise DataError("DatasetNotFound", f"{called} does not exist: write the URI of a file or a folder")
    names = sorted(each.name for each in folder.iterdir() if each.is_file())
    found = [name for name in names if fnmatchcase(name, pattern) and is_data_file(name)]
    if not found:
        there = (f"{each.name}/" if each.is_dir() else each.name for each in folder.iterdir())
        raise DataError("DatasetNotFound", f"{called} {describe_names(there)}")
    return [DataFile(folder / name, name) for name in found]


def is_data_file(name: str) -> bool:
    """Whether a file is one of rows, by its name."""
    lower = name.lower()
    if any(fnmatchcase(lower, other) for other in _OTHER_FILES):
        return False
    return unpacked_name(lower).endswith(DATA_SUFFIXES) or lower.endswith(".zip")


def data_patterns() -> list[str]:
    """What names of data files match, as a shell reads it."""
    return ["*.zip", *(f"*{suffix}{packed}" for suffix in DATA_SUFFIXES for packed in ("", *PACKED_SUFFIXES))]


def unpacked_name(name: str) -> str:
    """A file's name in lower case, without the suffix of its compression."""
    lower = name.lower()
    return next((lower.removesuffix(suffix) for suffix in PACKED_SUFFIXES if lower.endswith(suffix)), lower)


def is_text_file(name: str) -> bool:
    """Whether a file's name says that it holds plain text."""
    return unpacked_name(name).endswith((*TEXT_SUFFIXES, *MARKDOWN_SUFFIXES))


def name_some(names: Sequence[str]) -> str:
    """The first few names, as a phrase."""
    shown = ", ".join(names[:_SHOWN_NAMES])
    rest = len(names) - _SHOWN_NAMES
    return f"{shown} and {rest:,} more" if rest > 0 else shown or "nothing"


def describe_names(paths: Iterable[str]) -> str:
    """What to say of a place that holds no file of rows.

    Args:
        paths: of what is there; of what lies in folders below, the folder is named.
    """
    there = sorted({name + slash for name, slash, _ in (path.partition("/") for path in paths)})
    what = f"there are {name_some(there)}" if there else "nothing is there"
    return (
        f"names no file of rows ({what}): name one, or a folder of files, that end in {', '.join(DATA_SUFFIXES)}, or "
        f"in one of them and {', '.join(PACKED_SUFFIXES)}"
    )
