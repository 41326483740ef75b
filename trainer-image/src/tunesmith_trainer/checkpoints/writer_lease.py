"""Write lease on the checkpoints of a run, held by its newest attempt.

A pod on a lost node can't be killed, and may continue after another attempt has begun. It then reads another
holder in the lease, and ends without having written or removed anything.
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


class LeaseHolder(Document):
    """Attempt that holds the lease.

    The token distinguishes attempts of the same number, which occur outside Kubernetes.
    """

    schema_version: Literal[1] = 1
    attempt: int
    token: str


class WriterLease:
    """Lease file in a folder of checkpoints.

    Args:
        folder: the folder.
        holder: this attempt.
    """

    def __init__(self, folder: Path, holder: LeaseHolder) -> None:
        self._path = folder / LEASE_FILE
        self.holder = holder

    def take(self) -> None:
        """Take the lease, from an earlier attempt if there is one.

        Raises:
            InfrastructureError: a later attempt holds it.
        """
        current = self._read()
        if current is not None and current.attempt > self.holder.attempt:
            raise superseded(current)
        write_atomically(self._path, self.holder.to_json().encode())

    def check(self) -> None:
        """Check that this attempt still holds the lease.

        Raises:
            InfrastructureError: another attempt holds it, or the run is finished and its folder removed.
        """
        current = self._read()
        if current != self.holder:
            raise superseded(current)

    def _read(self) -> LeaseHolder | None:
        try:
            return LeaseHolder.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return None


def new_holder(environment: Mapping[str, str]) -> LeaseHolder:
    """This attempt, by the number that the operator gave it, with a new token."""
    return LeaseHolder(attempt=int(environment.get(ATTEMPT_ENV, "0")), token=uuid.uuid4().hex[:12])


def superseded(holder: LeaseHolder | None) -> InfrastructureError:
    """Failure of an attempt whose lease has another holder, or none."""
    other = f"attempt {holder.attempt} has" if holder else "a finished attempt had"
    message = f"{other} taken over the checkpoints of this run: this attempt writes nothing more"
    return InfrastructureError("Superseded", message)
