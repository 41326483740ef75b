"""The steps of training, from the newest whole checkpoint on, with a commit at each interval and at a stop."""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from tunesmith_contract.layout import checkpoints_uri
from tunesmith_contract.report import Checkpoint
from tunesmith_contract.run_config import Parallelism, TrainConfig
from tunesmith_contract.uris import MOUNTED
from tunesmith_data.failures import Preempted, UserError
from tunesmith_data.pod.progress import ProgressReporter
from tunesmith_data.pod.workspace import Workspace
from tunesmith_trainer.checkpoints.announcement import LastCheckpoint
from tunesmith_trainer.checkpoints.folder import CheckpointFolder, require_same_world
from tunesmith_trainer.checkpoints.writer_lease import WriterLease, new_holder
from tunesmith_trainer.preemption import Preemption
from tunesmith_trainer.train.callbacks.early_stopping import run_training
from tunesmith_trainer.train.callbacks.step_callbacks import CommitCheckpoints, StopWhenPreempted
from tunesmith_trainer.train.distributed.parallel import any_worker, is_first_rank, share_decision, world_size

from .disk_full import full_storage, is_full_storage

log = logging.getLogger(__name__)


class ResumableSteps:
    """Training that can be interrupted at any moment.

    The first worker decides what is resumed from: others might see a shared folder's state of a moment ago.

    Args:
        config: the run.
        workspace: where its checkpoints lie.
        preemption: whether the pod was told to go.

    Raises:
        InfrastructureError: a later attempt has begun.
        UserError: the checkpoint needs another number of devices, or the pods have no disk in common for its parts.
    """

    def __init__(self, config: TrainConfig, workspace: Workspace, preemption: Preemption) -> None:
        _require_one_disk(config, workspace)
        self._preemption = preemption
        self._uri = checkpoints_uri(workspace.work)
        root = workspace.checkpoints
        lease = WriterLease(root, share_decision(new_holder(os.environ)))
        self.folder = CheckpointFolder(root, self._uri, lease)
        last = LastCheckpoint(ProgressReporter())
        self._newest: Path | None = share_decision(self.folder.open() if is_first_rank() else None)
        if self._newest is not None:
            require_same_world(self._newest, world_size(), config.parallelism)
            if is_first_rank():
                last.remember(self.folder.describe(self._newest))
        self._stop = StopWhenPreempted(preemption)
        commit = CommitCheckpoints(self.folder, config.checkpoints, config.parallelism, last)
        self.callbacks: list[TrainerCallback] = [self._stop, commit]

    @property
    def output(self) -> Path:
        """What transformers is to take for its output folder."""
        return self.folder.staging

    def check_preemption(self) -> None:
        """Stop all workers here if one was told to go.

        Raises:
            Preempted: one was.
        """
        if any_worker(self._preemption.requested):
            raise Preempted

    def run(self, trainer: Any) -> float:
        """Train; the seconds that it took.

        Raises:
            Preempted: the pod was told to go; what was learned is committed.
            InfrastructureError: no space was left for a checkpoint, or another attempt has taken over.
        """
        if self._newest is not None:
            log.info("resuming from %s", self._newest.name)
        start = time.monotonic()
        with self._keeping_room():
            run_training(trainer, self._newest)
        if self._stop.stopped:
            raise Preempted
        return time.monotonic() - start

    def require_lease(self) -> None:
        """Make sure that no other attempt has taken over before anything is written at the end.

        Raises:
            InfrastructureError: one has.
        """
        self.folder.lease.check()

    def kept(self) -> tuple[Checkpoint, ...]:
        """The committed checkpoints."""
        return self.folder.kept()

    @contextlib.contextmanager
    def _keeping_room(self) -> Iterator[None]:
        """What is half written goes when training ends, so that a full volume has room for the next attempt."""
        try:
            yield
        except Exception as error:
            if not is_full_storage(error, self.folder.root):
                raise
            kept = self.folder.kept()
            raise full_storage(self._uri, f"checkpoint-{kept[-1].step}" if kept else None) from error
        finally:
            if is_first_rank():
                shutil.rmtree(self.folder.staging, ignore_errors=True)


def _require_one_disk(config: TrainConfig, workspace: Workspace) -> None:
    """A bucket gets what the first pod has on its disk; DeepSpeed writes parts in every pod.

    Raises:
        UserError: the parts would never come together.
    """
    in_parts = config.parallelism is not Parallelism.DDP
    if in_parts and config.nodes > 1 and workspace.work.scheme not in MOUNTED:
        message = (
            f"on {config.nodes} nodes {config.parallelism} writes checkpoints from every pod: "
            "name a volume that they share (pvc://) as workspace, or write parallelism DDP or nodes 1"
        )
        raise UserError("Workspace", message)
