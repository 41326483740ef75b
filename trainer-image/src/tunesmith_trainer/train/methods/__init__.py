"""TRL trainers of all training methods, one module per family."""

from typing import Any

from tunesmith_data.failures import UserError
from tunesmith_trainer.train.callbacks.tracking import isolate_trackers
from tunesmith_trainer.train.context import TrainingContext


def build_trainer(training: TrainingContext) -> Any:
    """Build TRL's trainer for the configured method.

    Raises:
        UserError: batch size and devices don't fit, or a target module is not in the model.
    """
    try:
        trainer = _build(training)
    except ValueError as error:
        if "arget modules" not in str(error):
            raise
        raise UserError(
            "TargetModules", f"{error}: name linear layers of the model, or all-linear"
        ) from error
    isolate_trackers(trainer)
    return trainer


def _build(training: TrainingContext) -> Any:
    """Build the trainer; each method is imported only if used, since TRL's online trainers import much."""
    match training.config.method.key:
        case "sft":
            from .supervised import build_sft_trainer

            return build_sft_trainer(training)
        case "pretraining":
            from .supervised import build_pretraining_trainer

            return build_pretraining_trainer(training)
        case "grpo":
            from .online import build_grpo_trainer

            return build_grpo_trainer(training)
        case "rloo":
            from .online import build_rloo_trainer

            return build_rloo_trainer(training)
        case "distillation":
            from .distillation import build_distillation_trainer

            return build_distillation_trainer(training)
        case "dpo":
            from .preference import build_dpo_trainer

            return build_dpo_trainer(training)
        case "kto":
            from .preference import build_kto_trainer

            return build_kto_trainer(training)
        case "reward":
            from .reward import build_reward_trainer

            return build_reward_trainer(training)
        case key:
            raise UserError("Method", f"method {key} can't be trained by this image")
