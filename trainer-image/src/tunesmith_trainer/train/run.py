"""The train stage, from prepared rows to a committed artefact."""

import logging
import math
import time
from pathlib import Path
from typing import Any

from transformers import set_seed

from tunesmith_contract.artifact import Probe
from tunesmith_contract.report import Outcome, RunReport, TrainingReport
from tunesmith_contract.run_config import TrainConfig
from tunesmith_trainer.data.render import Renderer
from tunesmith_trainer.data.split import Split
from tunesmith_trainer.failures import Preempted, UserError
from tunesmith_trainer.model import load_tokenizer, model_revision
from tunesmith_trainer.preemption import Preemption
from tunesmith_trainer.prepare import learns_answers_only, load_prepared, rows_of
from tunesmith_trainer.report import Workspace
from tunesmith_trainer.storage import Storage

from .arguments import is_first_rank, world_size
from .callbacks import CommitCheckpoints, StopWhenDiverged, StopWhenPreempted, raise_diverged
from .checkpoints import discard_torn, newest_checkpoint
from .context import Training
from .history import last_logged
from .methods import build_trainer
from .models import build_peft_config, load_model, set_padding
from .probes import build_probes, largest_effect
from .publish import publish_result

log = logging.getLogger(__name__)

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
    rows = load_prepared(workspace.prepared, config.dataset_digest)
    folder = _checked_model(config, storage)
    tokenizer = load_tokenizer(folder)
    set_padding(tokenizer)
    renderer = Renderer(tokenizer, answers_only=learns_answers_only(config.method))
    set_seed(config.hyperparameters.seed)
    model = load_model(folder)
    preemption.check()
    stop = StopWhenPreempted(preemption)
    commit = CommitCheckpoints(workspace.checkpoints, config.checkpoints.keep)
    trainer = build_trainer(
        Training(
            config=config,
            model=model,
            peft_config=build_peft_config(config.adapter),
            renderer=renderer,
            rows=rows,
            checkpoints=workspace.checkpoints,
            callbacks=[stop, commit, StopWhenDiverged()],
            storage=storage,
        )
    )
    seconds = _run_steps(trainer, workspace.checkpoints)
    if stop.stopped:
        raise Preempted
    return _finish(config, workspace, folder, trainer, renderer, rows, seconds)


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


def _run_steps(trainer: Any, checkpoints: Path) -> float:
    """Train from the newest whole checkpoint on; the seconds that it took."""
    newest = newest_checkpoint(checkpoints)
    if is_first_rank():
        discard_torn(checkpoints, newest)
    if newest is not None:
        log.info("resuming from %s", newest.name)
    start = time.monotonic()
    trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    return time.monotonic() - start


def _finish(
    config: TrainConfig,
    workspace: Workspace,
    folder: Path,
    trainer: Any,
    renderer: Renderer,
    rows: Split,
    seconds: float,
) -> RunReport | None:
    """Measure what was learned and commit it."""
    measured = trainer.evaluate() if rows.validation else {}
    if not is_first_rank():
        return None
    model = trainer.accelerator.unwrap_model(trainer.model)
    probes = build_probes(model, renderer, rows_of(rows))
    _require_effect(probes)
    artifact, exports = publish_result(
        model, renderer.tokenizer, config, probes, workspace, folder, trainer.state
    )
    training = TrainingReport(
        artifact=artifact,
        steps=trainer.state.global_step,
        epochs=trainer.state.epoch or 0.0,
        loss=last_logged(trainer.state.log_history, "loss"),
        eval_loss=measured.get("eval_loss"),
        tokens_per_second=_tokens(trainer) / seconds,
        gpu_seconds=seconds * world_size() if config.gpus_per_node else 0.0,
        seconds=seconds,
        precision="bfloat16" if trainer.args.bf16 else "float32",
        exports=exports,
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
