"""Resumable training: from the newest complete checkpoint, with a commit at intervals and on preemption."""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from tunesmith_contract.layout import checkpoint_name, checkpoints_uri
from tunesmith_contract.run_config import TrainConfig
from tunesmith_data.failures import Preempted
from tunesmith_data.pod.progress import ProgressReporter
from tunesmith_data.pod.workspace import Workspace
from tunesmith_trainer.checkpoints.announcement import CheckpointAnnouncer
from tunesmith_trainer.checkpoints.bucket import BucketCheckpoints
from tunesmith_trainer.checkpoints.folder import CheckpointFolder, require_same_world
from tunesmith_trainer.checkpoints.writer_lease import WriterLease, new_holder
from tunesmith_trainer.preemption import Preemption
from tunesmith_trainer.train.callbacks.early_stopping import run_training
from tunesmith_trainer.train.callbacks.step_callbacks import (
    AnnounceCheckpoints,
    CommitCheckpoints,
    StopAfterCheckpoint,
    StopWhenPreempted,
    UploadCheckpoints,
    copies_on_nodes,
)
from tunesmith_trainer.train.distributed.control_group import broadcast_from_first, wait_for_all
from tunesmith_trainer.train.distributed.parallel import (
    any_worker,
    is_first_of_node,
    is_first_rank,
    world_size,
)
from tunesmith_trainer.train.distributed.shared_digests import search_together

from .disk_full import full_storage, is_full_storage

log = logging.getLogger(__name__)


class ResumableTraining:
    """Training loop that can be interrupted at any moment and resumed from a checkpoint.

    The first worker chooses the checkpoint, since other pods may see an earlier state of a shared folder. All of them
    verify its files.

    Args:
        config: the run.
        workspace: workspace with its checkpoints.
        preemption: SIGTERM of this pod.
        progress: connection to the operator.

    Attributes:
        progress: connection to the operator.
        folder: the run's checkpoints.
        callbacks: callbacks that stop on preemption, and commit and upload checkpoints.

    Raises:
        InfrastructureError: a later attempt has begun.
        UserError: the checkpoint needs another number of devices.
    """

    def __init__(
        self, config: TrainConfig, workspace: Workspace, preemption: Preemption, progress: ProgressReporter
    ) -> None:
        self._preemption = preemption
        self.progress = progress
        self._uri = checkpoints_uri(workspace.work)
        root = workspace.checkpoints
        lease = WriterLease(root, broadcast_from_first(new_holder(os.environ)))
        self.folder = CheckpointFolder(root, self._uri, lease)
        announcer, bucket = CheckpointAnnouncer(progress), BucketCheckpoints(workspace)
        self._has_own_disk = not self.folder.shared and is_first_of_node()
        self._fetch = bucket.fetch if copies_on_nodes(self.folder) else None
        if self._has_own_disk:
            # What this pod uploads is uploaded for the holder, whose lease in the bucket is compared with this one.
            lease.take()
        self._newest = self.find_together(self.folder.open)
        if self._newest is not None:
            require_same_world(self._newest, world_size(), config.parallelism)
            if is_first_rank():
                announcer.write_for_launcher(self.folder.describe(self._newest))
        self._stop = StopWhenPreempted(preemption)
        commit = CommitCheckpoints(self.folder, config.checkpoints, config.parallelism)
        upload, announce = UploadCheckpoints(bucket, self.folder), AnnounceCheckpoints(self.folder, announcer)
        stop = StopAfterCheckpoint(self._stop)
        self.callbacks: list[TrainerCallback] = [self._stop, commit, upload, announce, stop]

    @property
    def output_dir(self) -> Path:
        """Output folder for transformers, in which it saves checkpoints before they are committed."""
        return self.folder.staging

    def find_together(self, search: Callable[[Callable[[Path], bool]], Path | None]) -> Path | None:
        """Checkpoint that a search on the first rank finds, whole on every node; all ranks must call it."""
        return search_together(search, self.folder.root, self._fetch)

    def check_preemption(self) -> None:
        """Stop all workers here if one has received SIGTERM; all of them must call it.

        Raises:
            Preempted: one has.
        """
        wait_for_all()
        if any_worker(self._preemption.requested):
            raise Preempted

    def run(self, trainer: Any) -> float:
        """Train to the end; wall time in seconds.

        Raises:
            Preempted: a pod received SIGTERM; the state is committed as a checkpoint.
            InfrastructureError: no space was left for a checkpoint, or another attempt has taken over.
        """
        if self._newest is not None:
            log.info("resuming from %s", self._newest.name)
        start = time.monotonic()
        with self._staging_cleanup():
            run_training(trainer, self._newest)
        if self._stop.stopped:
            raise Preempted
        return time.monotonic() - start

    def require_lease(self) -> None:
        """Check that this attempt still holds the write lease.

        Raises:
            InfrastructureError: another attempt has taken over.
        """
        self.folder.lease.check()

    @contextlib.contextmanager
    def _staging_cleanup(self) -> Iterator[None]:
        """Removal of unfinished checkpoints at the end, so that a full volume has space for the next attempt."""
        try:
            yield
        except Exception as error:
            if not is_full_storage(error, self.folder.root):
                raise
            committed = self.folder.committed()
            newest = checkpoint_name(committed[-1].step) if committed else None
            raise full_storage(self._uri, newest) from error
        finally:
            if is_first_rank() or self._has_own_disk:
                shutil.rmtree(self.folder.staging, ignore_errors=True)
