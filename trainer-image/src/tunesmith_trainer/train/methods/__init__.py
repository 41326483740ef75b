"""One module per family of methods; each turns a Training into TRL's trainer."""

from typing import Any

from tunesmith_data.failures import UserError
from tunesmith_trainer.train.callbacks.tracking import forgive_trackers
from tunesmith_trainer.train.context import Training


def build_trainer(training: Training) -> Any:
    """TRL's trainer of the configured method.

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
    forgive_trackers(trainer)
    return trainer


def _build(training: Training) -> Any:
    """Imports go with the method: TRL's online trainers bring much with them."""
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
