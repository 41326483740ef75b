"""Journal of a search: its trials, in a file of the workspace that outlives the pod.

The file is written whole when a trial starts, when it makes progress after a restart, and when it ends. So a pod that
takes over from a killed one repeats no trial that has ended, and goes on with the one that was running.
"""

from typing import Literal

from tunesmith_contract.base import Document
from tunesmith_contract.report import Artifact
from tunesmith_contract.search import Trial, TrialState
from tunesmith_data.pod.workspace import Workspace
from tunesmith_trainer.checkpoints.writer_lease import WriterLease

_JOURNAL_FILE = "journal.json"


class JournalEntry(Document):
    """A trial, and what the search needs to know of it beside that.

    Attributes:
        starts: processes that have worked on it since its last checkpoint.
        artifact: its artifact; None until it is published.
    """

    trial: Trial
    starts: int = 1
    artifact: Artifact | None = None


class _JournalFile(Document):
    schema_version: Literal[1] = 1
    ended: bool = False
    entries: tuple[JournalEntry, ...] = ()


class TrialJournal:
    """The journal of a run's search.

    Only the holder of the lease writes; readers need none.

    Args:
        workspace: the run's workspace.
        lease: lease of this attempt.

    Raises:
        StorageError: the bucket does not answer.
    """

    def __init__(self, workspace: Workspace, lease: WriterLease) -> None:
        self._workspace = workspace
        self._lease = lease
        self._uri = workspace.trials_uri.join(_JOURNAL_FILE)
        data = workspace.read(workspace.path(self._uri))
        self._file = _JournalFile.model_validate_json(data) if data else _JournalFile()

    @property
    def ended(self) -> bool:
        """True if there will be no further trial."""
        return self._file.ended

    @property
    def entries(self) -> tuple[JournalEntry, ...]:
        """All entries, in the order of the trials' numbers."""
        return self._file.entries

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials, in the order of their numbers."""
        return tuple(entry.trial for entry in self._file.entries)

    def running(self) -> JournalEntry | None:
        """The trial that was started and has not ended; None if there is none."""
        return next((entry for entry in self.entries if entry.trial.state is TrialState.RUNNING), None)

    def write(self, entry: JournalEntry) -> None:
        """Write a new trial, or the new state of one.

        Raises:
            InfrastructureError: another attempt has taken over.
        """
        number = entry.trial.number
        others = [other for other in self.entries if other.trial.number != number]
        entries = tuple(sorted([*others, entry], key=lambda each: each.trial.number))
        self._save(self._file.model_copy(update={"entries": entries}))

    def end(self) -> None:
        """Record that there will be no further trial.

        Raises:
            InfrastructureError: another attempt has taken over.
        """
        self._save(self._file.model_copy(update={"ended": True}))

    def _save(self, file: _JournalFile) -> None:
        self._lease.check()
        self._workspace.write(self._uri, file.to_json().encode())
        self._file = file
