"""Folders of a run, and the reports that finished stages commit there.

A rerun of a stage that finds its committed report ends at once with the same word. Where the workspace is a bucket, the
folders are on the pod's own disk: ``pull`` fills them, and what is committed goes to the bucket at once.
"""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from tunesmith_contract.artifact import Manifest
from tunesmith_contract.base import sha256_digest
from tunesmith_contract.layout import (
    DATA_REPORT_FOLDER,
    MANIFEST_FILE,
    SEARCH_FOLDER,
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
from tunesmith_contract.run_config import AnyConfig, TrainConfig
from tunesmith_contract.uris import MOUNTED, StorageUri, parse_uri
from tunesmith_storage.artifacts import place_folder, publish_artifact
from tunesmith_storage.errors import StorageError

from .secret_roles import workspace_roles
from .share import Share
from .storage import Storage, write_atomically
from .work_mirror import PREPARED_REPORT_FILE, WorkMirror

log = logging.getLogger(__name__)

ANSWERS = "answers"
STAGING = "staging"
TRAINED = "trained"
TRIALS = "trials"
SHARES = "shares"


@dataclass(frozen=True, slots=True)
class _Lender:
    """Another job whose prepared rows are read: its work files, and the bucket that holds them."""

    work: StorageUri
    mirror: WorkMirror | None


_WHOLE = Share()


class Workspace:
    """The folders of one run, or of one trial of its search.

    Args:
        storage: resolves URIs.
        config: the run.
        trial: number of the trial, which has folders of its own for everything that it writes.
        share: share of the items that this pod of an evaluation answers.

    Attributes:
        output: the URI below which artifacts are placed.
        work: the URI of the resource's own files.
        mirror: the bucket that holds them; None for a volume.
        share: share of the items that this pod answers.

    Raises:
        StorageError: the workspace's URI cannot be used for work files.
    """

    def __init__(
        self, storage: Storage, config: AnyConfig, trial: int | None = None, share: Share = _WHOLE
    ) -> None:
        self._storage = storage
        self.share = share
        self._stage = config.stage
        self._retains_checkpoints = isinstance(config, TrainConfig) and config.checkpoints.retain
        self.output = parse_uri(config.output)
        place = parse_uri(config.workspace) if config.workspace else self.output
        owner = config.owner
        part = () if trial is None else (TRIALS, str(trial))
        self.work = work_uri(place, owner.namespace, owner.uid).join(*part)
        self._beside_output = work_uri(self.output, owner.namespace, owner.uid).join(*part)
        self.mirror: WorkMirror | None = None
        if place.scheme not in MOUNTED:
            self.mirror = self._mirror_of(self.work, (owner.uid, *part), config)
        self._lender: _Lender | None = None
        lender = config.prepared_by if isinstance(config, TrainConfig) else None
        if lender is not None and lender != owner.uid:
            work = work_uri(place, owner.namespace, lender)
            mirror = self._mirror_of(work, (lender,), config) if self.mirror else None
            self._lender = _Lender(work, mirror)

    @property
    def folder(self) -> Path:
        """The resource's own folder."""
        return self.path(self.work)

    @property
    def prepared(self) -> Path:
        """The folder of the prepared data: its own, or that of the job whose trial this is."""
        if self._lender is None:
            return self.path(prepared_uri(self.work))
        uri, mirror = prepared_uri(self._lender.work), self._lender.mirror
        return self._storage.path(uri) if mirror is None else _local_path(uri, self._lender.work, mirror)

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
    def trials_uri(self) -> StorageUri:
        """URI of the folder with the journal and the work files of a search's trials."""
        return self.work.join(TRIALS)

    @property
    def search_uri(self) -> StorageUri:
        """URI of the folder with table and plot of a search, which is kept."""
        return self.work.join(SEARCH_FOLDER)

    @property
    def answers(self) -> Path:
        """Folder of an evaluation's answers, with a folder for each pod."""
        return self.folder / ANSWERS

    @property
    def own_answers(self) -> Path:
        """Folder of the answers of this pod, which no other pod writes to."""
        return self.answers / str(self.share.index)

    def share_uri(self, index: int) -> StorageUri:
        """URI of the file by which a pod tells the others of this attempt how far its share is."""
        return self.work.join(SHARES, str(self.share.attempt), f"{index}.json")

    def path(self, uri: StorageUri) -> Path:
        """Local path of a URI in the workspace, or of any mounted URI."""
        if self.mirror is not None:
            return _local_path(uri, self.work, self.mirror)
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
            lent = self._lender.mirror if self._lender else None
            (lent or self.mirror).pull(self.prepared)

    def push(self, path: Path, last: str | None = None) -> None:
        """Upload a file or folder of the workspace to the bucket; a no-op for files that lie on a volume.

        Args:
            last: name of the file that marks the folder as complete; it is sent after the others.
        """
        if self.mirror is not None and self.mirror.holds(path) and path.exists():
            self.mirror.push(path, last)

    def save_unfinished(self) -> None:
        """Upload what a failed stage leaves: findings, answers so far."""
        folders = {"prepare": (self.prepared, self.data_report), "evaluate": (self.own_answers,)}
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
        """Delete the files that only an unfinished run needs.

        Prepared rows stay: evaluations look for their items in what a model was trained on.
        """
        checkpoints = () if self._retains_checkpoints else (self.checkpoints,)
        others = (self.path(self.trials_uri), self.folder / SHARES)
        for folder in (*checkpoints, self.journal, self.answers, self.trained, *others):
            if self.mirror is not None and self.mirror.holds(folder):
                self.mirror.delete(folder)
            shutil.rmtree(folder, ignore_errors=True)
        for folder in (self.staging, self.staging.with_name(TRIALS)):
            shutil.rmtree(folder, ignore_errors=True)

    def _mirror_of(self, work: StorageUri, names: tuple[str, ...], config: AnyConfig) -> WorkMirror:
        """Copy of a folder of the bucket, below the folder of the run's namespace."""
        root = self._storage.scratch.joinpath("work", config.owner.namespace, *names)
        return WorkMirror(work, root, workspace_roles(config), self._storage.secrets)

    def commit(self, report: RunReport) -> None:
        """Write the stage's report; from then on the stage is done."""
        if self.mirror is not None and self._stage == "prepare":
            self.mirror.push(self.prepared, last=PREPARED_REPORT_FILE)
        self.push(self.logs)
        self.write(report_uri(self.work, self._stage), report.to_json().encode())


def _local_path(uri: StorageUri, work: StorageUri, mirror: WorkMirror) -> Path:
    """Path of a URI below ``work`` in the copy of the bucket."""
    return mirror.root / uri.path.removeprefix(work.path).lstrip("/")
