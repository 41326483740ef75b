"""Training of a model to its last step, on all workers of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, set_seed

from tunesmith_contract.run_config import TrainConfig
from tunesmith_data.pod.progress import ProgressReporter
from tunesmith_data.pod.storage import Storage
from tunesmith_data.pod.workspace import Workspace
from tunesmith_data.prepare import rows_of
from tunesmith_trainer.gpu.device import uses_gpu, worker_device
from tunesmith_trainer.preemption import Preemption
from tunesmith_trainer.train.artifact.probe_answers import add_answers
from tunesmith_trainer.train.artifact.probe_noise import measure_adapter
from tunesmith_trainer.train.artifact.probes import Measurement, probe_sequences
from tunesmith_trainer.train.callbacks.early_stopping import (
    CheckpointSelection,
    StopEarly,
    load_best_checkpoint,
)
from tunesmith_trainer.train.callbacks.measurements import (
    AnnounceMetrics,
    ThroughputMeter,
    describe_training,
    final_metrics,
)
from tunesmith_trainer.train.callbacks.step_callbacks import StopWhenDiverged
from tunesmith_trainer.train.distributed.parallel import consolidated_weights, is_first_rank

from .context import TrainingContext
from .loaded_base import LoadedBase, load_base
from .methods import build_trainer
from .models import build_peft_config
from .resume import ResumableTraining
from .starting_point import StartingPoint
from .trained_files import TrainedFiles, TrainedRecord


class TrainedModel:
    """Model in memory after its last step, with what is known of its training.

    Every worker has one. Under ZeRO-3 each holds a part of the model, and the first one its gathered weights.

    Args:
        training: what it was trained from.
        start: weights that it was trained from.
        loop: the training loop.
        trainer: the trainer.
        best_step: step of the loaded checkpoint; None for the last step.
        weights: trained tensors gathered from all workers, where the model is partitioned.
        record: result of training beside the weights.
    """

    def __init__(
        self,
        training: TrainingContext,
        start: StartingPoint,
        loop: ResumableTraining,
        trainer: Any,
        best_step: int | None,
        weights: dict[str, Any] | None,
        record: TrainedRecord,
    ) -> None:
        self._training = training
        self._start = start
        self._loop = loop
        self._state = trainer.state
        self._model = trainer.accelerator.unwrap_model(trainer.model)
        self._best_step = best_step
        self._weights = weights
        self.record = record

    def measure(self) -> Measurement:
        """Measurement with the adapter and without it; all workers must call it."""
        return measure_adapter(self._model, self.record.sequences)

    def save(self, files: TrainedFiles) -> None:
        """Save the model on the first worker.

        Raises:
            InfrastructureError: another attempt has taken over.
        """
        if not is_first_rank():
            return
        self._loop.require_lease()
        config = self._training.config
        if config.adapter is None and uses_gpu(config):
            cast_parameters(self._model, torch.bfloat16)
        files.save(
            self._model,
            self._training.tokenizer,
            self._start.as_base_of(config),
            self._weights,
            self._state.log_history,
            final_metrics(self._state, self._best_step),
            self.record,
        )


def run_training(
    config: TrainConfig,
    start: StartingPoint,
    storage: Storage,
    workspace: Workspace,
    preemption: Preemption,
) -> TrainedModel:
    """Train to the last step, and load the best weights; all workers must call it.

    Raises:
        Preempted: a pod received SIGTERM; the state is committed as a checkpoint.
        StageError: the run can't succeed.
    """
    loop = ResumableTraining(config, workspace, preemption, ProgressReporter())
    base = load_base(config, start, workspace)
    return train_on_base(base, config, loop, TrainingPlace(storage, workspace.logs))


@dataclass(frozen=True, slots=True)
class TrainingPlace:
    """Places that a training reads from, writes to and reports to, beside its checkpoints.

    Attributes:
        storage: storage of further models (teacher, reward model).
        logs: folder of TensorBoard event files.
        reports_steps: transformers reports each step to the operator; false where a callback does.
    """

    storage: Storage
    logs: Path
    reports_steps: bool = True


def train_on_base(
    base: LoadedBase,
    config: TrainConfig,
    loop: ResumableTraining,
    place: TrainingPlace,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainedModel:
    """Train a loaded base model to the last step, and load the best weights; all workers must call it.

    The base model keeps what was trained: an adapter is on it afterwards.

    Args:
        base: base model and rows.
        config: the run; its kind of adapter is the one that the base was loaded for.
        loop: checkpoints of the run.
        place: other places of the run.
        callbacks: callbacks that come after those of every run.

    Raises:
        Preempted: a pod received SIGTERM; the state is committed as a checkpoint.
        StageError: the run can't succeed.
    """
    selection = CheckpointSelection(config.method, config.early_stopping)
    device = worker_device(config)
    stop, meter = StopEarly(selection), ThroughputMeter(on_gpu=device == "cuda")
    training = _build_context(base, config, loop, place)
    # A reward model has no token probabilities to probe.
    probed = (
        ()
        if config.method.reward
        else add_answers(training.model, training.renderer, rows_of(base.rows), device)
    )
    loop.check_preemption()
    training.callbacks.extend(
        [
            AnnounceMetrics(selection, loop.progress),
            stop,
            meter,
            *loop.callbacks,
            StopWhenDiverged(),
            *callbacks,
        ]
    )
    # Again, so that the first weights of an adapter are the same whatever was trained or loaded before.
    set_seed(config.hyperparameters.seed)
    trainer = build_trainer(training)
    meter.seconds = loop.run(trainer)
    peak_memory = meter.peak_memory()
    best_step = load_best_checkpoint(trainer, selection, loop.folder.root, loop.find_together)
    record = TrainedRecord(
        sequences=tuple(probe_sequences(training.renderer, probed)),
        training={
            **describe_training(trainer, config, selection, meter, final_metrics(trainer.state, best_step)),
            "checkpoints": loop.folder.committed() if is_first_rank() else (),
            "stopped_early": stop.stopped,
            "peak_memory_bytes": peak_memory,
        },
    )
    weights = consolidated_weights(trainer)
    return TrainedModel(training, base.start, loop, trainer, best_step, weights, record)


def cast_parameters(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Cast a model's parameters to the type that they are stored in, and no buffer.

    The angles of rotary position embeddings are computed from a buffer, which has to stay in float32.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def _build_context(
    base: LoadedBase, config: TrainConfig, loop: ResumableTraining, place: TrainingPlace
) -> TrainingContext:
    return TrainingContext(
        config=config,
        model=base.model_to_train(config),
        peft_config=None if base.start.adapter else build_peft_config(config),
        kernels=base.kernels,
        renderer=base.renderer,
        rows=base.rows,
        output_dir=loop.output_dir,
        logs=place.logs,
        callbacks=[],
        storage=place.storage,
        reports_steps=place.reports_steps,
    )
