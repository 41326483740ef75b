"""Training of a model to its last step, on all workers of a run."""

from typing import Any

import torch
from transformers import set_seed

from tunesmith_contract.run_config import TrainConfig
from tunesmith_data.models.rendering import Renderer
from tunesmith_data.models.tokenizer import load_tokenizer, set_padding
from tunesmith_data.pod.storage import Storage
from tunesmith_data.pod.workspace import Workspace
from tunesmith_data.prepare import learns_answers_only, load_prepared, rows_of
from tunesmith_data.rows.table.split import Split
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
from .kernels import check_kernels, choose_kernels, detect_hardware, detect_support
from .methods import build_trainer
from .models import build_peft_config, load_model
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
    loop = ResumableTraining(config, workspace, preemption)
    rows = load_prepared(workspace.prepared, config.dataset_digest)
    selection = CheckpointSelection(config.method, config.early_stopping)
    device = worker_device(config)
    stop, meter = StopEarly(selection), ThroughputMeter(on_gpu=device == "cuda")
    training = _build_context(config, start, storage, workspace, rows, loop)
    # A reward model has no token probabilities to probe.
    probed = (
        () if config.method.reward else add_answers(training.model, training.renderer, rows_of(rows), device)
    )
    loop.check_preemption()
    training.callbacks.extend([AnnounceMetrics(selection), stop, meter, *loop.callbacks, StopWhenDiverged()])
    trainer = build_trainer(training)
    meter.seconds = loop.run(trainer)
    peak_memory = meter.peak_memory()
    best_step = load_best_checkpoint(trainer, selection, loop.folder)
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
    return TrainedModel(training, start, loop, trainer, best_step, weights, record)


def cast_parameters(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Cast a model's parameters to the type that they are stored in, and no buffer.

    The angles of rotary position embeddings are computed from a buffer, which has to stay in float32.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def _build_context(
    config: TrainConfig,
    start: StartingPoint,
    storage: Storage,
    workspace: Workspace,
    rows: Split,
    loop: ResumableTraining,
) -> TrainingContext:
    """Load tokenizer and model, with the fastest kernels that fit both."""
    tokenizer = load_tokenizer(start.folder)
    set_padding(tokenizer)
    on_gpu = uses_gpu(config)
    # Type of matrix multiplication: bfloat16 on a GPU, whatever the type of the weights.
    compute_dtype = torch.bfloat16 if on_gpu else torch.float32
    chosen = choose_kernels(
        detect_hardware(on_gpu=on_gpu),
        compute_dtype,
        detect_support(start.folder),
        packing=getattr(config.method.member, "packing", False),
    )
    kernels = check_kernels(chosen, start.folder, compute_dtype, worker_device(config))
    set_seed(config.hyperparameters.seed)
    return TrainingContext(
        config=config,
        model=load_model(start.folder, config, kernels, start.adapter),
        peft_config=None if start.adapter else build_peft_config(config),
        kernels=kernels,
        renderer=Renderer(tokenizer, answers_only=learns_answers_only(config.method)),
        rows=rows,
        output_dir=loop.output_dir,
        logs=workspace.logs,
        callbacks=[],
        storage=storage,
    )
