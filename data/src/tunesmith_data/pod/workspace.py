"""Folders of a run, and the reports that finished stages commit there.

A rerun of a stage that finds its committed report ends at once with the same word. Where the workspace is a bucket, the
folders are on the pod's own disk: ``pull`` fills them, and what is committed goes to the bucket at once.
"""

import logging
import shutil
from pathlib import Path

from tunesmith_contract.artifact import Manifest
from tunesmith_contract.base import sha256_digest
from tunesmith_contract.layout import (
    DATA_REPORT_FOLDER,
    MANIFEST_FILE,
    TENSORBOARD_FOLDER,
    SecretRole,
    artifact_uri,
    checkpoints_uri,
    generated_uri,
    journal_uri,
    prepared_uri,
    report_uri,
    work_uri,
)
from tunesmith_contract.report import Artifact, Outcome, RunReport, parse_report
from tunesmith_contract.run_config import AnyConfig
from tunesmith_contract.uris import MOUNTED, StorageUri, parse_uri
from tunesmith_storage.artifacts import place_folder, publish_artifact
from tunesmith_storage.errors import StorageError

from .secret_roles import workspace_roles
from .storage import Storage, write_atomically
from .work_mirror import PREPARED_REPORT_FILE, WorkMirror

log = logging.getLogger(__name__)

ANSWERS = "answers"
STAGING = "staging"
TRAINED = "trained"


class Workspace:
    """The folders of one run.

    Attributes:
        output: the URI below which artifacts are placed.
        work: the URI of the resource's own files.
        mirror: the bucket that holds them; None for a volume.

    Raises:
        StorageError: the workspace's URI cannot be used for work files.
    """

    def __init__(self, storage: Storage, config: AnyConfig) -> None:
        self._storage = storage
        self._stage = config.stage
        self.output = parse_uri(config.output)
        place = parse_uri(config.workspace) if config.workspace else self.output
        owner = config.owner
        self.work = work_uri(place, owner.namespace, owner.uid)
        self._beside_output = work_uri(self.output, owner.namespace, owner.uid)
        self.mirror: WorkMirror | None = None
        if place.scheme not in MOUNTED:
            root = storage.scratch / "work" / owner.namespace / owner.uid
            self.mirror = WorkMirror(self.work, root, workspace_roles(config), storage.secrets)

    @property
    def folder(self) -> Path:
        """The resource's own folder."""
        return self.path(self.work)

    @property
    def prepared(self) -> Path:
        """The folder of the prepared data."""
        return self.path(prepared_uri(self.work))

    @property
    def data_report_uri(self) -> StorageUri:
        """URI of the data report's folder, which is kept."""
        return self.work.join(DATA_REPORT_FOLDER)

    @property
    def data_report(self) -> Path:
        """Folder of the data report."""
        return self.path(self.data_report_uri)

    @property
    def generated(self) -> Path:
        """File of generated rows, which is kept."""
        return self.path(generated_uri(self.work))

    @property
    def journal(self) -> Path:
        """Folder of the journal of generated rows."""
        return self.path(journal_uri(self.work))

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path(checkpoints_uri(self.work))

    @property
    def logs(self) -> Path:
        """The folder of TensorBoard's event files, which stay."""
        return self.folder / TENSORBOARD_FOLDER

    @property
    def staging(self) -> Path:
        """Folder in which an artifact is assembled; on the output's volume if there is one."""
        if self.output.scheme in MOUNTED:
            return self._storage.path(self._beside_output) / STAGING
        return self.folder / STAGING

    @property
    def trained(self) -> Path:
        """Folder of a trained model until it is published; beside the folder in which artifacts are assembled."""
        return self.staging.with_name(TRAINED)

    @property
    def answers(self) -> Path:
        """Folder of an evaluation's answers."""
        return self.folder / ANSWERS

    def path(self, uri: StorageUri) -> Path:
        """Local path of a URI in the workspace, or of any mounted URI."""
        if self.mirror is not None:
            return self.mirror.root / uri.path.removeprefix(self.work.path).lstrip("/")
        return self._storage.path(uri)

    def pull(self) -> None:
        """Download what earlier pods left in the bucket; a no-op for a volume. Every rank may call it."""
        if self.mirror is None:
            return
        if self._stage == "evaluate":
            self.mirror.pull(self.answers)
        elif self._stage == "generate":
            self.mirror.pull(self.journal)
        else:
            self.mirror.pull(self.prepared)

    def push(self, path: Path, last: str | None = None) -> None:
        """Upload a file or folder of the workspace to the bucket; a no-op for files that lie on a volume.

        Args:
            last: name of the file that marks the folder as complete; it is sent after the others.
        """
        if self.mirror is not None and self.mirror.holds(path) and path.exists():
            self.mirror.push(path, last)

    def save_unfinished(self) -> None:
        """Upload what a failed stage leaves: findings, answers so far."""
        folders = {"prepare": (self.prepared, self.data_report), "evaluate": (self.answers,)}
        try:
            for folder in folders.get(self._stage, ()):
                self.push(folder)
        except StorageError as error:
            log.warning("what is unfinished was not saved: %s", error)

    def committed_report(self) -> RunReport | None:
        """Report of this stage if it has succeeded before and its rows still exist."""
        rows = {"prepare": self.prepared / PREPARED_REPORT_FILE, "generate": self.generated}.get(self._stage)
        if rows is not None and self.read(rows) is None:
            return None
        data = self.read(self.path(report_uri(self.work, self._stage)))
        report = parse_report(data) if data else None
        return report if report and report.outcome is Outcome.SUCCEEDED else None

    def read(self, path: Path) -> bytes | None:
        """Content of a small file of the workspace, on disk or in the bucket; None if there is none."""
        if path.is_file():
            return path.read_bytes()
        return self.mirror.read(path) if self.mirror is not None and self.mirror.holds(path) else None

    def publish(self, staged: Path) -> Artifact:
        """Move a folder to the artifact path that its manifest's digest determines.

        Raises:
            StorageError: the place holds other bytes, or can't be written.
        """
        data = (staged / MANIFEST_FILE).read_bytes()
        digest = sha256_digest(data)
        uri = artifact_uri(self.output, digest)
        if uri.scheme in MOUNTED:
            place_folder(staged, self._storage.path(uri))
        else:
            publish_artifact(self._storage.open(uri, (SecretRole.OUTPUT,)), staged)
            shutil.rmtree(staged)
        size = sum(file.size_bytes for file in Manifest.model_validate_json(data).files)
        return Artifact(uri=str(uri), digest=digest, size_bytes=size)

    def write(self, uri: StorageUri, data: bytes) -> None:
        """Write a file of the workspace, whole or not at all."""
        path = self.path(uri)
        write_atomically(path, data)
        self.push(path)

    def prune(self) -> None:
        """Delete the files that only an unfinished run needs."""
        for folder in (self.checkpoints, self.prepared, self.journal, self.answers, self.trained):
            if self.mirror is not None and self.mirror.holds(folder):
                self.mirror.delete(folder)
            shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(self.staging, ignore_errors=True)

    def commit(self, report: RunReport) -> None:
        """Write the stage's report; from then on the stage is done."""
        if self.mirror is not None and self._stage == "prepare":
            self.mirror.push(self.prepared, last=PREPARED_REPORT_FILE)
        self.push(self.logs)
        self.write(report_uri(self.work, self._stage), report.to_json().encode())
