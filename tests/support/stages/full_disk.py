"""Simulated full disk: failure at a chosen write below a folder, for all libraries that write checkpoints."""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft.peft_model
import pytest
import safetensors.torch
import torch

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class FullDisk:
    """Counts the writes to paths that hold ``part``, and refuses them from the ``full_at``-th on.

    Attributes:
        writes: how many there were.
    """

    def __init__(self, part: str, full_at: int) -> None:
        self._part = part
        self._full_at = full_at
        self.writes = 0

    def write(self, path: Any) -> None:
        """One more write."""
        if not isinstance(path, str | os.PathLike) or self._part not in os.fspath(path):
            return
        self.writes += 1
        if self.writes >= self._full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))


# The disks that are in use: a hook can't be taken away again.
_disks: list[FullDisk] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    writes = event == "os.rename" or (event == "open" and (arguments[2] or 0) & _WRITES)
    for disk in _disks if writes else ():
        disk.write(arguments[0])


sys.addaudithook(_audit)


def _through_the_disk(save: Callable[..., Any], disk: FullDisk) -> Callable[..., Any]:
    """Writers in C++ and Rust open files unseen by Python: what they leave when the disk is full is a part."""

    def write(value: Any, path: Any, *arguments: Any, **more: Any) -> Any:
        try:
            disk.write(path)
        except OSError:
            Path(path).write_bytes(b"a part")
            raise
        return save(value, path, *arguments, **more)

    return write


@contextmanager
def full_disk(part: str, full_at: int) -> Iterator[FullDisk]:
    """Within it, the disk is full from the ``full_at``-th write on."""
    disk = FullDisk(part, full_at)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "save", _through_the_disk(torch.save, disk))
        saver = _through_the_disk(safetensors.torch.save_file, disk)
        patch.setattr(peft.peft_model, "safe_save_file", saver)
        _disks.append(disk)
        try:
            yield disk
        finally:
            _disks.remove(disk)
