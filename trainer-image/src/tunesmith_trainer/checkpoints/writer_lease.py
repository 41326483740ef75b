"""Who may write checkpoints: the newest attempt, and nobody else.

A pod on a lost node can't be killed, and it may wake up after another attempt has begun. It finds another
name in the lease then, and ends without having written or removed anything.
"""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from tunesmith_contract.base import Document
from tunesmith_contract.layout import ATTEMPT_ENV
from tunesmith_data.failures import InfrastructureError
from tunesmith_data.pod.storage import write_atomically

LEASE_FILE = "lease.json"


class Holder(Document):
    """An attempt; the token tells runs of the same number apart, as they occur outside Kubernetes."""

    schema_version: Literal[1] = 1
    attempt: int
    token: str


class WriterLease:
    """The lease on a folder of checkpoints.

    Args:
        folder: where the lease lies.
        holder: who asks for it.
    """

    def __init__(self, folder: Path, holder: Holder) -> None:
        self._path = folder / LEASE_FILE
        self.holder = holder

    def take(self) -> None:
        """Take the lease over from an earlier attempt.

        Raises:
            InfrastructureError: a later attempt has it.
        """
        found = self._read()
        if found is not None and found.attempt > self.holder.attempt:
            raise superseded(found)
        write_atomically(self._path, self.holder.to_json().encode())

    def check(self) -> None:
        """Make sure that no other attempt has taken over.

        Raises:
            InfrastructureError: one has, or the run is finished and its folder gone.
        """
        found = self._read()
        if found != self.holder:
            raise superseded(found)

    def _read(self) -> Holder | None:
        try:
            return Holder.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return None


def new_holder(environment: Mapping[str, str]) -> Holder:
    """This run as a holder; the operator numbers the attempts."""
    return Holder(attempt=int(environment.get(ATTEMPT_ENV, "0")), token=uuid.uuid4().hex[:12])


def superseded(found: Holder | None) -> InfrastructureError:
    """The failure of an attempt that finds another one, or none, in its lease."""
    who = f"attempt {found.attempt} has" if found else "a finished attempt had"
    message = f"{who} taken over the checkpoints of this run: this attempt writes nothing more"
    return InfrastructureError("Superseded", message)
