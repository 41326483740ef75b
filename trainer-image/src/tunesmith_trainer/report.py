"""Committed reports: what a finished stage leaves, so that a rerun of it ends at once with the same word."""

from pathlib import Path

from tunesmith_contract.layout import checkpoints_uri, prepared_uri, report_uri, work_uri
from tunesmith_contract.report import Outcome, RunReport, parse_report
from tunesmith_contract.run_config import EvaluateConfig, PrepareConfig, TrainConfig
from tunesmith_contract.uris import StorageUri, parse_uri

from .storage import Storage, write_atomically


class Workspace:
    """The folders of one run.

    Attributes:
        output: the URI below which artefacts are placed.
        work: the URI of the resource's own files.
    """

    def __init__(self, storage: Storage, config: PrepareConfig | TrainConfig | EvaluateConfig) -> None:
        self._storage = storage
        self._stage = config.stage
        self.output = parse_uri(config.output)
        self.work = work_uri(self.output, config.owner.namespace, config.owner.uid)

    @property
    def folder(self) -> Path:
        """The resource's own folder."""
        return self.path(self.work)

    @property
    def prepared(self) -> Path:
        """The folder of the prepared data."""
        return self.path(prepared_uri(self.work))

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path(checkpoints_uri(self.work))

    def path(self, uri: StorageUri) -> Path:
        """The mounted path of a URI."""
        return self._storage.path(uri)

    def committed_report(self) -> RunReport | None:
        """The report of this stage if it has succeeded before."""
        path = self.path(report_uri(self.work, self._stage))
        if not path.is_file():
            return None
        report = parse_report(path.read_bytes())
        return report if report and report.outcome is Outcome.SUCCEEDED else None

    def commit(self, report: RunReport) -> None:
        """Write the stage's report; from then on the stage is done."""
        write_atomically(self.path(report_uri(self.work, self._stage)), report.to_json().encode())
