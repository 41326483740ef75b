"""The train stage, from prepared rows to a committed artefact."""

import math
from typing import Any

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
from tunesmith_trainer.preemption import Preemption
from tunesmith_trainer.train.artifact.continuations import with_answers
from tunesmith_trainer.train.artifact.probes import ProbeTokens, largest_effect, probe_sequences
from tunesmith_trainer.train.artifact.reference_model import measure_probes
from tunesmith_trainer.train.callbacks.checkpoint_upload import SaveCheckpoints
from tunesmith_trainer.train.callbacks.early_stopping import Selection, StopEarly, load_best
from tunesmith_trainer.train.callbacks.measurements import Announce, Meter, describe_training, kept_numbers
from tunesmith_trainer.train.callbacks.step_callbacks import StopWhenDiverged, raise_diverged
from tunesmith_trainer.train.distributed.parallel import consolidated_weights, gang, is_first_rank
from tunesmith_trainer.train.publish import publish_result

from .context import Training
from .kernels import choose_kernels, probe_hardware, probe_support
from .methods import build_trainer
from .models import build_peft_config, load_model
from .resume import ResumableSteps
from .starting_point import Start, find_start

#: Nats per token below which two models are taken to be the same.
LEAST_EFFECT = 1e-4


def train(
    config: TrainConfig, storage: Storage, workspace: Workspace, preemption: Preemption
) -> RunReport | None:
    """Run the stage; only the first rank has a report.

    Raises:
        Preempted: the pod was told to go; what was learned is committed.
        StageError: the run can't succeed.
    """
    BucketCheckpoints(workspace).pull()
    with gang(config, preemption):
        return _train(config, storage, workspace, ResumableSteps(config, workspace, preemption))


def _train(
    config: TrainConfig, storage: Storage, workspace: Workspace, steps: ResumableSteps
) -> RunReport | None:
    rows = load_prepared(workspace.prepared, config.dataset_digest)
    start = find_start(config, storage, check=is_first_rank())
    selection = Selection(config.method, config.early_stopping)
    stop, meter = StopEarly(selection), Meter()
    training = _build_training(config, start, storage, workspace, rows, steps)
    probed = () if config.method.reward else with_answers(training.model, training.renderer, rows_of(rows))
    steps.check_preemption()
    training.callbacks.extend(
        [Announce(selection), stop, meter, *steps.callbacks, SaveCheckpoints(workspace), StopWhenDiverged()]
    )
    trainer = build_trainer(training)
    meter.seconds = steps.run(trainer)
    best_step = load_best(trainer, selection, workspace.checkpoints)
    model = _as_stored(trainer, config)
    weights = consolidated_weights(trainer)
    probes = _measure(model, config, start, probe_sequences(training.renderer, probed), weights)
    peak_memory = meter.peak_memory()
    if not is_first_rank():
        return None
    _require_effect(probes, config)
    steps.require_lease()
    numbers, history = kept_numbers(trainer.state, best_step), trainer.state.log_history
    artifact, exports = publish_result(
        model,
        training.tokenizer,
        start.of(config),
        probes,
        workspace,
        start.folder,
        history,
        numbers,
        weights,
    )
    published = {
        "artifact": artifact,
        "exports": exports,
        "checkpoints": steps.kept(),
        "stopped_early": stop.stopped,
        "peak_memory_bytes": peak_memory,
    }
    report = describe_training(trainer, config, selection, meter, numbers, published)
    result = RunReport(stage="train", outcome=Outcome.SUCCEEDED, training=report)
    workspace.commit(result)
    return result


def _build_training(
    config: TrainConfig,
    start: Start,
    storage: Storage,
    workspace: Workspace,
    rows: Split,
    steps: ResumableSteps,
) -> Training:
    """Tokenizer and model, run by the kernels that fit."""
    tokenizer = load_tokenizer(start.folder)
    set_padding(tokenizer)
    on_gpu = torch.cuda.is_available()
    # Matrices are multiplied in bfloat16 on a GPU, whatever the weights are held in.
    computed = torch.bfloat16 if on_gpu else torch.float32
    kernels = choose_kernels(probe_hardware(), computed, probe_support(start.folder))
    set_seed(config.hyperparameters.seed)
    return Training(
        config=config,
        model=load_model(start.folder, config, kernels, start.adapter),
        peft_config=None if start.adapter else build_peft_config(config),
        kernels=kernels,
        renderer=Renderer(tokenizer, answers_only=learns_answers_only(config.method)),
        rows=rows,
        checkpoints=steps.output,
        logs=workspace.logs,
        callbacks=[],
        storage=storage,
    )


def _as_stored(trainer: Any, config: TrainConfig) -> Any:
    """The trained model in the precision that it is stored in."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if config.adapter is None and torch.cuda.is_available():
        model.to(torch.bfloat16)
    return model


def _measure(
    model: Any, config: TrainConfig, start: Start, sequences: list[ProbeTokens], weights: Any
) -> tuple[Probe, ...]:
    """What tells the tuned model from its base; all workers have to ask. A reward model gives no probabilities."""
    if config.method.reward is not None:
        return ()
    return measure_probes(model, config, start.folder, sequences, weights)


def _require_effect(probes: tuple[Probe, ...], config: TrainConfig) -> None:
    if config.method.reward is not None:
        return
    effect = largest_effect(probes)
    if not math.isfinite(effect):
        raise_diverged("the tuned model's probabilities are not numbers")
    if effect < LEAST_EFFECT:
        message = "training changes nothing: raise learningRate or epochs, or check warmupRatio"
        raise UserError("NoEffect", message)
