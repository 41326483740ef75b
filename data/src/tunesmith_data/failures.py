"""Failures of a stage, and the mapping of exceptions to failure categories.

==========================================================  ==============  ===========================
what happened                                               category        reason
==========================================================  ==============  ===========================
``StageError`` raised by this package                       its own         its own
``StorageError`` of a bucket, registry or hub               its own         its own
an unreadable ``run.json``                                  UserError       InvalidConfig
a URI that names no storage                                 UserError       InvalidUri
no such repository, revision or file on the hub, or gated   UserError       ModelNotFound
a file or folder may not be read or written                 UserError       AccessDenied
a write to the read-only file system of the image           InternalError   ReadOnlyImage
CUDA, host or allocator out of memory, ``MemoryError``      OutOfMemory     OutOfMemory
the cgroup's ``oom_kill`` counter grew (the launcher)       OutOfMemory     OutOfMemory
``torch.distributed`` errors; NCCL or gloo in the message   Communication   CommunicationLost
any other ``OSError`` (disk full, I/O, connection)          Infrastructure  StorageFull, InputOutputError
a CUDA error other than memory                              Infrastructure  DeviceError
fewer or other GPUs than a run can use (before any work)    Infrastructure  one of ``GPUReason``
a worker died of a signal, or without a report (launcher)   Infrastructure  WorkerDied
a process beside a worker was killed                        Infrastructure  WorkerDied
anything else: the same input would fail the same way       InternalError   UnexpectedError
==========================================================  ==============  ===========================
"""

import errno
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.report import Failure
from tunesmith_contract.uris import InvalidUri
from tunesmith_storage.errors import StorageError

MESSAGE_LIMIT = 2048

_MEMORY_CLASSES = frozenset({"OutOfMemoryError", "MemoryError"})
#: On slices of GPUs, torch can't ask the driver for the memory of the process, and says that instead of the cause.
_MIG_TEXT = "NVML_SUCCESS == r INTERNAL ASSERT FAILED"
_MEMORY_TEXTS = (
    "out of memory",
    "can't allocate memory",
    "DefaultCPUAllocator",
    "killed by signal: Killed",
    _MIG_TEXT,
)
_DISTRIBUTED_CLASSES = frozenset({"DistError", "DistBackendError", "DistNetworkError", "DistStoreError"})
_DISTRIBUTED_TEXTS = ("NCCL", "gloo", "Connection closed by peer", "ProcessGroup")
_MISSING_ON_HUB = frozenset(
    {"RepositoryNotFoundError", "RevisionNotFoundError", "EntryNotFoundError", "GatedRepoError"}
)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class StageError(Exception):
    """Failure of a stage, with its category and reason.

    Args:
        category: who or what caused the failure.
        reason: a PascalCase word.
        message: a sentence with what to do.
    """

    def __init__(self, category: FailureCategory, reason: str, message: str) -> None:
        super().__init__(message)
        self.category = category
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickling support, for errors raised in a separate process."""
        return _restore, (type(self), self.category, self.reason, self.message)


def _restore(kind: type["StageError"], category: FailureCategory, reason: str, message: str) -> "StageError":
    error = kind.__new__(kind)
    StageError.__init__(error, category, reason, message)
    return error


class UserError(StageError):
    """The run cannot succeed with this configuration."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(FailureCategory.USER_ERROR, reason, message)


class DataError(StageError):
    """The data set is wrong."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(FailureCategory.DATA_ERROR, reason, message)


class InfrastructureError(StageError):
    """Failure of storage or machine: another attempt may succeed."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(FailureCategory.INFRASTRUCTURE, reason, message)


class InternalError(StageError):
    """Fault of Tunesmith or its image, not of the run's configuration or data."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(FailureCategory.INTERNAL_ERROR, reason, message)


class Preempted(Exception):
    """The pod was asked to stop; a checkpoint is committed if there is progress to keep."""


def describe(error: BaseException) -> Failure:
    """Failure for an exception, by the module's table."""
    category, reason = classify(error)
    text = (
        error.message if isinstance(error, (StageError, StorageError)) else f"{type(error).__name__}: {error}"
    )
    return Failure(category=category, reason=reason, message=text[:MESSAGE_LIMIT])


def classify(error: BaseException) -> tuple[FailureCategory, str]:
    """Category and reason of an exception; torch's classes are compared by name, since torch may not be installed."""
    if isinstance(error, (StageError, StorageError)):
        return error.category, error.reason
    if isinstance(error, ValidationError):
        return FailureCategory.USER_ERROR, "InvalidConfig"
    if isinstance(error, InvalidUri):
        return FailureCategory.USER_ERROR, "InvalidUri"
    names = {cls.__name__ for cls in type(error).__mro__}
    text = str(error)
    if names & _MEMORY_CLASSES or _mentions(error, text, _MEMORY_TEXTS):
        return FailureCategory.OUT_OF_MEMORY, "OutOfMemory"
    if names & _DISTRIBUTED_CLASSES or _mentions(error, text, _DISTRIBUTED_TEXTS):
        return FailureCategory.COMMUNICATION, "CommunicationLost"
    if "BrokenProcessPool" in names:
        return FailureCategory.INFRASTRUCTURE, "WorkerDied"
    if names & _MISSING_ON_HUB:
        return FailureCategory.USER_ERROR, "ModelNotFound"
    if isinstance(error, OSError):
        return _classify_os_error(error)
    if isinstance(error, RuntimeError) and "CUDA error" in text:
        return FailureCategory.INFRASTRUCTURE, "DeviceError"
    return FailureCategory.INTERNAL_ERROR, "UnexpectedError"


def _mentions(error: BaseException, text: str, needles: tuple[str, ...]) -> bool:
    return isinstance(error, RuntimeError) and any(needle in text for needle in needles)


def _classify_os_error(error: OSError) -> tuple[FailureCategory, str]:
    if error.errno == errno.EROFS and _lies_on_root(error.filename):
        return FailureCategory.INTERNAL_ERROR, "ReadOnlyImage"
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return FailureCategory.USER_ERROR, "AccessDenied"
    if error.errno in _FULL:
        return FailureCategory.INFRASTRUCTURE, "StorageFull"
    return FailureCategory.INFRASTRUCTURE, "InputOutputError"


def _lies_on_root(filename: object) -> bool:
    """True if a path is on the image's own file system: storage and scratch space are mounts."""
    if not isinstance(filename, (str, os.PathLike)):
        return False
    path = Path(filename).absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_mount()) == Path("/")
