"""Detection of a full volume in the errors of the libraries that save checkpoints."""

import errno
import os
from pathlib import Path

from tunesmith_contract.uris import MOUNTED, StorageUri
from tunesmith_data.failures import InfrastructureError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# Messages of safetensors, which contain the system's own text.
_FULL_TEXTS = tuple(os.strerror(code) for code in sorted(_FULL))
# Messages of torch's writer, which name no cause.
_WRITER_TEXTS = ("inline_container.cc", "iostream error", "PytorchStreamWriter")
_PROBE_BYTES = 1 << 20


def is_full_storage(error: BaseException, folder: Path) -> bool:
    """True if an error, or one in its chain of causes, is that no space is left in a folder."""
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause)
        if isinstance(cause, OSError) and cause.errno in _FULL:
            return True
        if any(words in text for words in _FULL_TEXTS):
            return True
        if any(words in text for words in _WRITER_TEXTS) and _is_full(folder):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def full_storage(uri: StorageUri, kept: str | None) -> InfrastructureError:
    """Failure of a run whose volume is full; ``kept`` names the newest committed checkpoint, if any."""
    state = f"{kept} is complete and kept" if kept else "there is no earlier one"
    advice = (
        "Enlarge the volume"
        if uri.scheme in MOUNTED
        else "Write more ephemeral-storage in compute.resources.requests, since pods write them to their own disk first"
    )
    message = (
        f"no space is left for a checkpoint in {uri}; {state}. {advice}, or lower checkpoints.keep; "
        "the next attempt continues from the kept checkpoint"
    )
    return InfrastructureError("StorageFull", message)


def _is_full(folder: Path) -> bool:
    """True if a test file of 1 MiB can't be written."""
    probe = folder / f".space-probe-{os.getpid()}"
    try:
        with probe.open("wb") as stream:
            stream.write(bytes(_PROBE_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return error.errno in _FULL
    finally:
        probe.unlink(missing_ok=True)
    return False
