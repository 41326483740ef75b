"""Digests of checkpoints, computed by all ranks together: each file is read once, where it is in memory if possible."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tunesmith_contract.artifact import File
from tunesmith_trainer.checkpoints.digests import (
    files_of_node,
    matching_files,
    split_evenly,
    sync_and_describe,
)
from tunesmith_trainer.checkpoints.folder import read_commit

from .control_group import broadcast_from_first, gather_on_first, wait_for_all
from .parallel import is_first_rank, ranks_per_node, world_size

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class _Request:
    """Request of the first rank to verify files.

    Attributes:
        folder: the checkpoint.
        shares: files of each rank.
    """

    folder: Path
    shares: tuple[tuple[File, ...], ...]


@dataclass(frozen=True, slots=True)
class _Answer:
    """End of the first rank's search, with its result."""

    found: Any


def describe_together(staged: Path) -> list[File]:
    """Sync and digest a saved checkpoint; all ranks must call it when they have saved their part.

    The ranks of a node divide the files that were written there, which its memory still holds.

    Returns:
        Files with their digests on the first rank, none on all others.
    """
    wait_for_all()
    node, share = divmod(int(os.environ.get("RANK", "0")), ranks_per_node())
    own = split_evenly(files_of_node(staged, node, ranks_per_node()), ranks_per_node())[share]
    return [file for files in gather_on_first(sync_and_describe(staged, own)) for file in files]


def search_together(search: Callable[[Callable[[Path], bool]], _Found], *, shared: bool) -> _Found:
    """Result of a search for a checkpoint on the first rank, for which all ranks verify files.

    All ranks must call it, and get the same result.

    Args:
        search: called on the first rank, with a function that tells if a checkpoint is complete.
        shared: all nodes see the folder of checkpoints, not the first one alone.
    """
    if is_first_rank():
        result = search(lambda folder: _verify(folder, world_size() if shared else ranks_per_node()))
        broadcast_from_first(_Answer(result))
        return result
    while isinstance(request := broadcast_from_first(None), _Request):
        share = request.shares[int(os.environ["RANK"])]
        gather_on_first(matching_files(request.folder, share))
    found: _Found = request.found
    return found


def _verify(folder: Path, helpers: int) -> bool:
    """True if a checkpoint is complete; called on the first rank while the others wait for requests."""
    commit = read_commit(folder)
    if commit is None:
        return False
    by_name = {file.path: file for file in commit.files}
    names = split_evenly({name: file.size_bytes for name, file in by_name.items()}, helpers)
    shares = [tuple(by_name[name] for name in share) for share in names]
    shares += [()] * (world_size() - helpers)
    broadcast_from_first(_Request(folder, tuple(shares)))
    matching = set().union(*gather_on_first(matching_files(folder, shares[0])))
    # Another node may see an earlier state of a shared folder: what it did not find is read again here.
    missed = [file for file in commit.files if file.path not in matching]
    return len(matching_files(folder, missed)) == len(missed)
