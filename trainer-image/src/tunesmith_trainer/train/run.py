"""The train stage, from prepared rows to a committed artefact."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import set_seed

from tunesmith_contract.artifact import Probe
from tunesmith_contract.progress import EVAL_REWARD, REWARD
from tunesmith_contract.report import Outcome, RunReport, TrainingReport
from tunesmith_contract.run_config import TrainConfig
from tunesmith_trainer.data.formats import Row
from tunesmith_trainer.data.render import Renderer
from tunesmith_trainer.failures import UserError
from tunesmith_trainer.model import load_tokenizer, model_revision
from tunesmith_trainer.preemption import Preemption
from tunesmith_trainer.prepare import learns_answers_only, load_prepared, rows_of
from tunesmith_trainer.report import Workspace
from tunesmith_trainer.storage import Storage

from .callbacks import StopWhenDiverged, raise_diverged
from .context import Training
from .continuations import with_answers
from .history import last_logged
from .methods import build_trainer
from .models import build_peft_config, load_model, set_padding
from .parallel import consolidated_weights, gang, is_first_rank, world_size
from .probes import build_probes, largest_effect
from .publish import publish_result
from .resume import ResumableSteps

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
    with gang(config, preemption):
        return _train(config, storage, workspace, ResumableSteps(config, workspace, preemption))


def _train(
    config: TrainConfig, storage: Storage, workspace: Workspace, steps: ResumableSteps
) -> RunReport | None:
    rows = load_prepared(workspace.prepared, config.dataset_digest)
    folder = _checked_model(config, storage)
    tokenizer = load_tokenizer(folder)
    set_padding(tokenizer)
    renderer = Renderer(tokenizer, answers_only=learns_answers_only(config.method))
    set_seed(config.hyperparameters.seed)
    reward = config.method.reward is not None
    model = load_model(folder, reward=reward)
    probed = () if reward else with_answers(model, renderer, rows_of(rows))
    steps.check_preemption()
    trainer = build_trainer(
        Training(
            config=config,
            model=model,
            peft_config=build_peft_config(config.adapter, reward=reward),
            renderer=renderer,
            rows=rows,
            checkpoints=steps.output,
            logs=workspace.logs,
            callbacks=[*steps.callbacks, StopWhenDiverged()],
            storage=storage,
        )
    )
    seconds = steps.run(trainer)
    return _finish(config, workspace, folder, trainer, renderer, probed, steps, seconds)


def _checked_model(config: TrainConfig, storage: Storage) -> Path:
    """The base model's folder, if it is still the one that was prepared for."""
    folder = storage.model_folder(config.base_model, weights=True)
    if is_first_rank():
        found = model_revision(config.base_model, folder)
        if found != config.base_model_revision:
            message = (
                f"{config.base_model} has changed since it was prepared for: it was "
                f"{config.base_model_revision} and is {found}; make a new job"
            )
            raise UserError("ModelChanged", message)
    return folder


def _finish(
    config: TrainConfig,
    workspace: Workspace,
    folder: Path,
    trainer: Any,
    renderer: Renderer,
    probed: Sequence[Row],
    steps: ResumableSteps,
    seconds: float,
) -> RunReport | None:
    """Measure what was learned and commit it. Where weights lie in parts, all ranks measure and gather."""
    measured = trainer.evaluate() if trainer.eval_dataset is not None else {}
    model = trainer.accelerator.unwrap_model(trainer.model)
    probes = () if config.method.reward else build_probes(model, renderer, probed)
    weights = consolidated_weights(trainer)
    if not is_first_rank():
        return None
    if not config.method.reward:
        _require_effect(probes)
    steps.require_lease()
    artifact, exports = publish_result(
        model, renderer.tokenizer, config, probes, workspace, folder, trainer.state, weights
    )
    training = TrainingReport(
        artifact=artifact,
        steps=trainer.state.global_step,
        epochs=trainer.state.epoch or 0.0,
        loss=last_logged(trainer.state.log_history, "loss"),
        eval_loss=measured.get("eval_loss"),
        reward=last_logged(trainer.state.log_history, REWARD),
        eval_reward=measured.get(EVAL_REWARD),
        tokens_per_second=_tokens(trainer) / seconds,
        gpu_seconds=seconds * world_size() if config.gpus_per_node else 0.0,
        seconds=seconds,
        precision="bfloat16" if trainer.args.bf16 else "float32",
        exports=exports,
        micro_batch_size=trainer.args.per_device_train_batch_size,
        checkpoints=steps.kept(),
    )
    report = RunReport(stage="train", outcome=Outcome.SUCCEEDED, training=training)
    workspace.commit(report)
    return report


def _require_effect(probes: tuple[Probe, ...]) -> None:
    effect = largest_effect(probes)
    if not math.isfinite(effect):
        raise_diverged("the tuned model's probabilities are not numbers")
    if effect < LEAST_EFFECT:
        message = "the adapter changes nothing: raise learningRate or epochs, or check warmupRatio"
        raise UserError("NoEffect", message)


def _tokens(trainer: Any) -> Any:
    """Tokens seen by this process since it began."""
    return last_logged(trainer.state.log_history, "num_tokens") or 0
