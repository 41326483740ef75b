"""Train stage: prepared rows in, published artifact and committed report out."""

import math

import torch
from transformers import set_seed

from tunesmith_contract.artifact import Probe
from tunesmith_contract.report import Outcome, RunReport
from tunesmith_contract.run_config import TrainConfig
from tunesmith_data.failures import UserError
from tunesmith_data.models.rendering import Renderer
from tunesmith_data.models.tokenizer import load_tokenizer, set_padding
from tunesmith_data.pod.storage import Storage
from tunesmith_data.pod.workspace import Workspace
from tunesmith_data.prepare import learns_answers_only, load_prepared, rows_of
from tunesmith_data.rows.table.split import Split
from tunesmith_trainer.checkpoints.bucket import BucketCheckpoints
from tunesmith_trainer.gpu.device import uses_gpu, worker_device
from tunesmith_trainer.preemption import Preemption
from tunesmith_trainer.train.artifact.probe_answers import add_answers
from tunesmith_trainer.train.artifact.probes import largest_effect, probe_sequences
from tunesmith_trainer.train.artifact.reference_model import measure_probes
from tunesmith_trainer.train.callbacks.early_stopping import (
    CheckpointSelection,
    StopEarly,
    load_best_checkpoint,
)
from tunesmith_trainer.train.callbacks.measurements import (
    AnnounceMetrics,
    ThroughputMeter,
    build_training_report,
    final_metrics,
)
from tunesmith_trainer.train.callbacks.step_callbacks import (
    StopWhenDiverged,
    raise_diverged,
)
from tunesmith_trainer.train.distributed.parallel import consolidated_weights, gang, is_first_rank
from tunesmith_trainer.train.publish import publish_result

from .context import TrainingContext
from .kernels import check_kernels, choose_kernels, detect_hardware, detect_support
from .methods import build_trainer
from .models import build_peft_config, load_model
from .resume import ResumableTraining
from .starting_point import StartingPoint, find_starting_point

#: Difference in nats per token below which two models count as equal.
MIN_EFFECT = 1e-4


def train(
    config: TrainConfig, storage: Storage, workspace: Workspace, preemption: Preemption
) -> RunReport | None:
    """Run the stage; the report on the first rank, None on all others.

    Raises:
        Preempted: a pod received SIGTERM; the state is committed as a checkpoint.
        StageError: the run can't succeed.
    """
    BucketCheckpoints(workspace).pull()
    with gang(config, preemption):
        return _train(config, storage, workspace, ResumableTraining(config, workspace, preemption))


def _train(
    config: TrainConfig, storage: Storage, workspace: Workspace, loop: ResumableTraining
) -> RunReport | None:
    rows = load_prepared(workspace.prepared, config.dataset_digest)
    start = find_starting_point(config, storage, check_revision=is_first_rank())
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
    best_step = load_best_checkpoint(trainer, selection, workspace.checkpoints)
    model = trainer.accelerator.unwrap_model(trainer.model)
    if config.adapter is None and uses_gpu(config):
        model.to(torch.bfloat16)  # the precision of the stored weights
    weights = consolidated_weights(trainer)
    probes: tuple[Probe, ...] = ()
    if config.method.reward is None:
        sequences = probe_sequences(training.renderer, probed)
        probes = measure_probes(model, config, start.folder, sequences, weights)
    peak_memory = meter.peak_memory()
    if not is_first_rank():
        return None
    if config.method.reward is None:
        _require_effect(probes)
    loop.require_lease()
    metrics = final_metrics(trainer.state, best_step)
    artifact, exports = publish_result(
        model,
        training.tokenizer,
        start.as_base_of(config),
        probes,
        workspace,
        start.folder,
        trainer.state.log_history,
        metrics,
        weights,
    )
    published = {
        "artifact": artifact,
        "exports": exports,
        "checkpoints": loop.folder.committed(),
        "stopped_early": stop.stopped,
        "peak_memory_bytes": peak_memory,
    }
    report = build_training_report(trainer, config, selection, meter, metrics, published)
    result = RunReport(stage="train", outcome=Outcome.SUCCEEDED, training=report)
    workspace.commit(result)
    return result


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


def _require_effect(probes: tuple[Probe, ...]) -> None:
    """Check that training changed the model's probabilities, to finite ones.

    Raises:
        UserError: training diverged, or changed nothing.
    """
    effect = largest_effect(probes)
    if not math.isfinite(effect):
        raise_diverged("the tuned model's probabilities are not numbers")
    if effect < MIN_EFFECT:
        message = "training changes nothing: raise learningRate or epochs, or check warmupRatio"
        raise UserError("NoEffect", message)
