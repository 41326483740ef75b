"""Files of a trained model, saved when training has ended and before the model is measured, merged and published.

A later process, of the same attempt or of the next one, goes on from them and does not train again.
"""

import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from tunesmith_contract.base import Document
from tunesmith_contract.run_config import TrainConfig
from tunesmith_data.pod.storage import sync, write_atomically
from tunesmith_data.pod.workspace import Workspace
from tunesmith_trainer.train.artifact.files import save_trained
from tunesmith_trainer.train.artifact.model_card import write_card
from tunesmith_trainer.train.artifact.probes import MeasuredProbes, ProbeTokens
from tunesmith_trainer.train.callbacks.history import write_history

_RECORD_FILE = "trained.json"
_PROBES_FILE = "probes.json"
_WEIGHTS_FOLDER = "artifact"


class TrainedRecord(Document):
    """Result of training beside the weights.

    Attributes:
        sequences: candidates of probes.
        training: members of the training report, without the artifacts.
    """

    schema_version: Literal[1] = 1
    sequences: tuple[ProbeTokens, ...]
    training: dict[str, Any]


class TrainedFiles:
    """Folder with the files of a run's trained model.

    Args:
        workspace: the run's workspace.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._folder = workspace.trained
        self._record = self._folder / _RECORD_FILE
        self._probes = self._folder / _PROBES_FILE

    @property
    def weights(self) -> Path:
        """Folder of the adapter or the full model, with model card and metrics."""
        return self._folder / _WEIGHTS_FOLDER

    def exist(self) -> bool:
        """True if training has ended and its result is saved.

        Raises:
            StorageError: the bucket does not answer.
        """
        return self._workspace.read(self._record) is not None

    def save(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        config: TrainConfig,
        tensors: dict[str, Any] | None,
        history: Sequence[Mapping[str, Any]],
        metrics: Mapping[str, float | int | None],
        record: TrainedRecord,
    ) -> None:
        """Save the trained model, whole or not at all.

        Args:
            model: a PeftModel where the run has an adapter, else the model.
            tokenizer: the base model's, with its chat template.
            config: the run.
            tensors: tensors by name, where they were gathered from several devices.
            history: the trainer's log.
            metrics: final metrics by name, for the model card.
            record: what else there is to keep.
        """
        staged = self._workspace.staging / uuid.uuid4().hex
        weights = staged / _WEIGHTS_FOLDER
        weights.mkdir(parents=True)
        save_trained(model, tokenizer, config, weights, tensors)
        write_history(weights, history)
        write_card(weights, config, metrics)
        for path in weights.iterdir():
            sync(path)
        # Not canonical JSON: a loss that is no number becomes null, and the measurement says what is wrong.
        write_atomically(staged / _RECORD_FILE, record.model_dump_json().encode())
        shutil.rmtree(self._folder, ignore_errors=True)
        staged.rename(self._folder)
        sync(self._folder.parent)
        self._workspace.push(self._folder, last=_RECORD_FILE)

    def load(self) -> TrainedRecord:
        """Record of the saved result, whose files are downloaded where they are in a bucket.

        Raises:
            StorageError: the bucket does not answer.
        """
        if not self._record.is_file() and self._workspace.mirror is not None:
            self._workspace.mirror.pull(self._folder)
        return TrainedRecord.model_validate_json(self._record.read_bytes())

    def load_probes(self) -> MeasuredProbes | None:
        """Probes that were measured and saved; None before that."""
        data = self._workspace.read(self._probes)
        return MeasuredProbes.model_validate_json(data) if data else None

    def save_probes(self, measured: MeasuredProbes) -> None:
        """Save the measured probes, which a later process takes as they are."""
        write_atomically(self._probes, measured.to_json().encode())
        self._workspace.push(self._probes)
