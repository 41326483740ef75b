"""A volume that is full while a checkpoint is saved: each library says it in its own words."""

import errno
import os
from pathlib import Path

from tunesmith_contract.uris import StorageUri
from tunesmith_data.failures import InfrastructureError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# safetensors, and whoever passes the system's words on.
_FULL_TEXTS = tuple(os.strerror(code) for code in sorted(_FULL))
# torch's writer says only that what it wrote is not there.
_WRITER_TEXTS = ("inline_container.cc", "iostream error", "PytorchStreamWriter")
_PROBE_BYTES = 1 << 20


def is_full_storage(error: BaseException, folder: Path) -> bool:
    """Whether an error, or what caused it, is that no space is left in a folder."""
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen)
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return True
        if any(words in text for words in _FULL_TEXTS):
            return True
        if any(words in text for words in _WRITER_TEXTS) and _has_no_room(folder):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def full_storage(uri: StorageUri, kept: str | None) -> InfrastructureError:
    """The failure; ``kept`` names the newest committed checkpoint."""
    state = f"{kept} is whole and kept" if kept else "there is no earlier one"
    message = (
        f"no space is left for a checkpoint in {uri}; {state}. Enlarge the volume, or lower checkpoints.keep; "
        "the next attempt goes on from what is kept"
    )
    return InfrastructureError("StorageFull", message)


def _has_no_room(folder: Path) -> bool:
    probe = folder / f".room-{os.getpid()}"
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
