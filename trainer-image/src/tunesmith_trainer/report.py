"""The folders of a run, and the reports that finished stages commit there.

A rerun of a stage that finds its committed report ends at once with the same word.
"""

import shutil
from pathlib import Path

from tunesmith_contract.layout import TENSORBOARD_FOLDER, checkpoints_uri, prepared_uri, report_uri, work_uri
from tunesmith_contract.report import Outcome, RunReport, parse_report
from tunesmith_contract.run_config import EvaluateConfig, PrepareConfig, TrainConfig
from tunesmith_contract.uris import StorageUri, parse_uri

from .storage import Storage, write_atomically

#: The last file that prepare leaves beside the rows.
PREPARED_REPORT_FILE = "report.json"


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

    @property
    def logs(self) -> Path:
        """The folder of TensorBoard's event files, which stay."""
        return self.folder / TENSORBOARD_FOLDER

    def path(self, uri: StorageUri) -> Path:
        """The mounted path of a URI."""
        return self._storage.path(uri)

    def committed_report(self) -> RunReport | None:
        """The report of this stage if it has succeeded before; prepare has only while its rows are there."""
        if self._stage == "prepare" and not (self.prepared / PREPARED_REPORT_FILE).is_file():
            return None
        path = self.path(report_uri(self.work, self._stage))
        if not path.is_file():
            return None
        report = parse_report(path.read_bytes())
        return report if report and report.outcome is Outcome.SUCCEEDED else None

    @property
    def staging(self) -> Path:
        """Where an artefact is put together, on the volume that it will stay on."""
        return self.folder / "staging"

    @property
    def answers(self) -> Path:
        """The folder of answers that an evaluation has so far."""
        return self.folder / "answers"

    def prune(self) -> None:
        """Remove what only an unfinished run needs."""
        for folder in (self.checkpoints, self.prepared, self.staging, self.answers):
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, report: RunReport) -> None:
        """Write the stage's report; from then on the stage is done."""
        write_atomically(self.path(report_uri(self.work, self._stage)), report.to_json().encode())
