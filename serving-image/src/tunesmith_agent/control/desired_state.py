"""Desired state of the pod: the newest one from any source, kept on the pod's disk.

The operator's own word is confirmed. The mounted file may be a minute old, and what it says may have been taken back
since: unconfirmed, it takes requests from versions and raises the share of none.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from enum import Enum
from pathlib import Path

from pydantic import ValidationError

from tunesmith_contract.agent import DESIRED_FILE, STATE_FILE, DesiredAlias, DesiredState

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0


class Source(Enum):
    """Sender of a desired state."""

    OPERATOR = "operator"
    FILE = "file"
    #: What this pod kept before its agent was restarted; the operator had confirmed it.
    DISK = "disk"


class DesiredStore:
    """Newest DesiredState: of several sources, the highest generation wins.

    Attributes:
        current: the state that is applied, with the aliases for the pod's base model; None before the first one.
        applied_digest: digest of the state as it was sent; empty before the first one.
        confirmed_generation: the latest generation that the operator sent; 0 before the first one.
        is_confirmed: the operator has sent a state to this process.
        withholds: the current state gives a version fewer requests than the file that it comes from.

    Args:
        kept: file on the pod's disk, which outlives the agent's process.
        on_change: called with each new state.
        base_model_uri: URI of the base model that the engine serves.
    """

    def __init__(self, kept: Path, on_change: Callable[[], None], base_model_uri: str = "") -> None:
        self.current: DesiredState | None = None
        self.applied_digest = ""
        self._base_model_uri = base_model_uri
        self.confirmed_generation = 0
        self.is_confirmed = self.withholds = False
        self._kept = kept
        self._on_change = on_change

    def load(self) -> None:
        """Take what was kept on the pod's disk, if there is anything."""
        try:
            data = self._kept.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("the kept desired state is not readable", extra={"error": error.strerror})
            return
        self.offer(data, Source.DISK)

    def offer(self, data: str | bytes, source: Source) -> bool:
        """Accept a state if it is newer than the current one; True if it was. An invalid one is logged and ignored."""
        try:
            sent = DesiredState.model_validate_json(data)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_input=False, include_context=False)
            log.error("desired state is invalid", extra={"source": source.value, "problems": problems[:3]})
            return False
        state = sent.for_base_model(self._base_model_uri)
        self.is_confirmed = self.is_confirmed or source is Source.OPERATOR
        if self.current is not None and not self._is_news(state, self.current, source):
            return False
        log.info("new desired state", extra={"source": source.value, "generation": state.generation})
        self.withholds = False
        if source is Source.FILE:
            restrained = restrain(state, self.current)
            self.withholds, state = restrained != state, restrained
        else:
            self.confirmed_generation = state.generation
        self.current, self.applied_digest = state, sent.digest()
        if source is Source.OPERATOR:
            self._keep(sent)
        self._on_change()
        return True

    def _is_news(self, state: DesiredState, current: DesiredState, source: Source) -> bool:
        if source is Source.OPERATOR and state.generation == current.generation:
            return self.confirmed_generation != state.generation or state != current
        return state.generation > current.generation

    def _keep(self, state: DesiredState) -> None:
        new = self._kept.with_suffix(".new")
        try:
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(state.to_json())
            os.replace(new, self._kept)
        except OSError as error:
            # Serving goes on; only a restart of this agent would begin from the mounted file.
            log.warning("the desired state can't be kept", extra={"error": error.strerror})


def restrain(state: DesiredState, current: DesiredState | None) -> DesiredState:
    """State from a file, without what would give a version more requests than it has."""
    known = {alias.name: alias for alias in current.aliases} if current else {}
    aliases = tuple(_restrain_alias(alias, known.get(alias.name)) for alias in state.aliases)
    return state.model_copy(update={"aliases": aliases})


def _restrain_alias(alias: DesiredAlias, current: DesiredAlias | None) -> DesiredAlias:
    if current is None or current.stable is None:
        return alias.model_copy(update={"weight": 0})
    if alias.stable is None:
        return alias
    given = {current.stable.digest: 100 - current.weight}
    if current.candidate is not None:
        given[current.candidate.digest] = current.weight
    way_back = current.previous is not None and alias.stable.digest == current.previous.digest
    if alias.stable.digest == current.stable.digest or way_back:
        weight = min(alias.weight, given.get(alias.candidate.digest, 0) if alias.candidate else 0)
        return alias.model_copy(update={"weight": weight})
    # Another version was promoted: until that is confirmed, it keeps the share that it has.
    weight = given.get(alias.stable.digest, 0)
    update = {"stable": current.stable, "candidate": alias.stable, "weight": weight}
    return alias.model_copy(update=update)


class FileWatcher:
    """Poller of the mounted ConfigMap, the source of the desired state while the operator is away."""

    def __init__(self, folder: Path, store: DesiredStore) -> None:
        self._folder = folder
        self._store = store
        self._last_read: dict[Path, tuple[int, int]] = {}

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            # An operator of the first release writes its own file alone, and leaves the other as it is. The store takes
            # the higher generation; of one generation the whole state, which is offered first. It is read last: if
            # kubelet exchanges the files between the two reads, what comes is the older part and the newer whole.
            of_first_release = self._read_new(self._folder / DESIRED_FILE)
            whole = self._read_new(self._folder / STATE_FILE)
            for data in (whole, of_first_release):
                if data is not None:
                    self._store.offer(data, Source.FILE)
            await asyncio.sleep(POLL_SECONDS)

    def _read_new(self, path: Path) -> bytes | None:
        """Content of a file that has changed since it was last read; None for others."""
        try:
            status = path.stat()
            # kubelet swaps a symlink: a new file has another inode.
            identity = (status.st_ino, status.st_mtime_ns)
            if identity == self._last_read.get(path):
                return None
            data = path.read_bytes()
        except OSError as error:
            if self._last_read.pop(path, None) or not isinstance(error, FileNotFoundError):
                details = {"file": path.name, "error": error.strerror}
                log.warning("desired state file is not readable", extra=details)
            return None
        self._last_read[path] = identity
        return data
