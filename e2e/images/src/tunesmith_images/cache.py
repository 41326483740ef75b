"""Build cache outside the work tree, keyed by content."""

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[4]
KEY_LENGTH = 12

_GENERATED = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}


def cache_dir() -> Path:
    """``$TUNESMITH_CACHE``, or ``tunesmith`` in the user's cache folder. Not created here."""
    if own := os.environ.get("TUNESMITH_CACHE"):
        return Path(own).absolute()
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home).absolute() / "tunesmith"


def source_files(root: Path, inputs: Iterable[str]) -> list[Path]:
    """The files that `inputs` (files and folders, relative to `root`) hold, sorted, without generated ones.

    Raises:
        FileNotFoundError: an input does not exist.
    """
    files: set[Path] = set()
    for name in inputs:
        path = root / name
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; it is an input of a build")
        files.update([path] if path.is_file() else (file for file in path.rglob("*") if file.is_file()))
    return sorted(path for path in files if not _is_generated(path.relative_to(root)))


def _is_generated(path: Path) -> bool:
    return any(part in _GENERATED or part.endswith(".egg-info") for part in path.parts)


def content_key(root: Path, inputs: Iterable[str], *recipe: str) -> str:
    """Twelve hex digits over the names, executable bits and bytes of `inputs`, and over `recipe`."""
    digest = hashlib.sha256()
    for part in recipe:
        _update(digest, part.encode())
    for file in source_files(root, inputs):
        _update(digest, str(file.relative_to(root)).encode())
        _update(digest, b"x" if file.stat().st_mode & 0o100 else b"-")
        _update(digest, file.read_bytes())
    return digest.hexdigest()[:KEY_LENGTH]


def _update(digest: "hashlib._Hash", part: bytes) -> None:
    """Lengths go in too, so that moving a byte from one part to the next changes the key."""
    digest.update(len(part).to_bytes(8))
    digest.update(part)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; others wait. The lock falls with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
