"""Digests of checkpoints, computed by all ranks together: each file is read once, where it is in memory if possible."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tunesmith_contract.artifact import File
from tunesmith_trainer.checkpoints.digests import (
    files_of_node,
    matching_files,
    split_evenly,
    sync_and_describe,
)
from tunesmith_trainer.checkpoints.folder import read_commit

from .control_group import broadcast_from_first, gather_on_first, wait_for_all
from .parallel import is_first_of_node, is_first_rank, ranks_per_node, world_size


@dataclass(frozen=True, slots=True)
class _Verification:
    """Request of the first rank to verify files.

    Attributes:
        folder: the checkpoint.
        shares: files of each rank.
    """

    folder: Path
    shares: tuple[tuple[File, ...], ...]


@dataclass(frozen=True, slots=True)
class _Fetch:
    """Request of the first rank to complete the copy of a checkpoint on each node."""

    name: str


@dataclass(frozen=True, slots=True)
class _Answer:
    """End of the first rank's search, with the name of the checkpoint that it found."""

    name: str | None


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


def search_together(
    search: Callable[[Callable[[Path], bool]], Path | None], root: Path, fetch: Callable[[str], bool] | None
) -> Path | None:
    """Checkpoint that a search on the first rank finds, which all nodes hold; all ranks must call it.

    Args:
        search: called on the first rank, with a function that tells if a checkpoint is complete.
        root: folder of checkpoints, as this rank sees it.
        fetch: where each node has its own copy of that folder: completes a checkpoint there, by its name, and tells if
            it is whole. None if all ranks see the same folder; then all verify files of it.
    """
    verify = _verify if fetch is None else partial(_fetch_everywhere, fetch)
    if is_first_rank():
        found = search(verify)
        broadcast_from_first(_Answer(found.name if found else None))
        return found
    while not isinstance(request := broadcast_from_first(None), _Answer):
        if isinstance(request, _Verification):
            gather_on_first(matching_files(request.folder, request.shares[int(os.environ["RANK"])]))
        elif fetch is not None:
            gather_on_first(_fetch_for_node(fetch, request.name))
    return root / request.name if request.name else None


def _fetch_everywhere(fetch: Callable[[str], bool], folder: Path) -> bool:
    """True if all nodes hold a checkpoint; called on the first rank while the others wait for requests."""
    broadcast_from_first(_Fetch(folder.name))
    return all(gather_on_first(_fetch_for_node(fetch, folder.name)))


def _fetch_for_node(fetch: Callable[[str], bool], name: str) -> bool:
    return fetch(name) if is_first_of_node() else True


def _verify(folder: Path) -> bool:
    """True if a checkpoint is complete; called on the first rank while the others wait for requests."""
    commit = read_commit(folder)
    if commit is None:
        return False
    by_name = {file.path: file for file in commit.files}
    names = split_evenly({name: file.size_bytes for name, file in by_name.items()}, world_size())
    shares = tuple(tuple(by_name[name] for name in share) for share in names)
    broadcast_from_first(_Verification(folder, shares))
    matching = set().union(*gather_on_first(matching_files(folder, shares[0])))
    # Another node may see an earlier state of a shared folder: what it did not find is read again here.
    missed = [file for file in commit.files if file.path not in matching]
    return len(matching_files(folder, missed)) == len(missed)
