"""Digests of a checkpoint's files, and their division among the ranks that compute them."""

import os
import re
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tunesmith_contract.artifact import File
from tunesmith_data.pod.storage import file_digest, sync

_MAX_THREADS = 8

# Files that each rank writes for itself: random states by transformers, partitions by DeepSpeed.
_FILE_OF_RANK = re.compile(r"(?:^|/)(?:rng_state_|(?:bf16_)?zero_pp_rank_)(\d+)")


def writer_of(name: str) -> int:
    """Rank that wrote a file of a checkpoint: the first one, unless the name holds another."""
    match = _FILE_OF_RANK.search(name)
    return int(match[1]) if match else 0


def files_of_node(folder: Path, node: int, ranks_per_node: int) -> dict[str, int]:
    """Names and sizes of the files in a folder that the ranks of one node wrote.

    A node holds what it wrote in memory, and sees all of it; what others wrote may not be visible yet.
    """
    files = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file()
    }
    return {name: size for name, size in files.items() if writer_of(name) // ranks_per_node == node}


def split_evenly(sizes: Mapping[str, int], parts: int) -> list[list[str]]:
    """Division of files into parts of about the same number of bytes; the same on every rank."""
    shares: list[list[str]] = [[] for _ in range(parts)]
    loads = [0] * parts
    for name, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        least = loads.index(min(loads))
        shares[least].append(name)
        loads[least] += size
    return shares


def sync_and_describe(folder: Path, names: Iterable[str]) -> list[File]:
    """Sync files to disk; their names, sizes and digests."""

    def describe(name: str) -> File:
        path = folder / name
        sync(path)
        return File(path=name, size_bytes=path.stat().st_size, sha256=file_digest(path))

    with _threads() as pool:
        return list(pool.map(describe, names))


def matching_files(folder: Path, files: Collection[File]) -> set[str]:
    """Names of the files whose bytes have the digest that is written for them."""

    def matches(file: File) -> bool:
        try:
            return file_digest(folder / file.path) == file.sha256
        except OSError:
            return False

    with _threads() as pool:
        found = list(pool.map(matches, files))
    return {file.path for file, holds in zip(files, found, strict=True) if holds}


def _threads() -> ThreadPoolExecutor:
    """Threads of this worker for digests, one per processor: hashing releases the interpreter's lock."""
    workers = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    processors = max(1, len(os.sched_getaffinity(0)) // workers)
    return ThreadPoolExecutor(min(processors, _MAX_THREADS))
