"""Learning from rewards of answers that the model makes itself: GRPO and RLOO.

``batchSize`` counts answers, as in TRL: one optimizer step sees batchSize / generations prompts, each with as many
answers as ``generations`` says. So batchSize is a multiple of ``generations``, and of what all devices take at once
(micro batch x devices); a group may lie across devices.
"""

import math
from typing import Any

from datasets import Dataset, Features, Json, Value
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from tunesmith_contract.methods import GRPOLoss, GRPOMethod, RLOOMethod
from tunesmith_contract.run_config import Hyperparameters
from tunesmith_data.failures import UserError
from tunesmith_data.rewards.build import build_reward_functions, require_no_tools
from tunesmith_data.rows.schema.formats import Row
from tunesmith_trainer.rewards.model_scorer import build_model
from tunesmith_trainer.train.arguments import common_arguments
from tunesmith_trainer.train.context import Training
from tunesmith_trainer.train.distributed.parallel import world_size

from .few_metrics import FewMetrics
from .replay import ReplayedOrder

#: Rows that are answered when the reward is measured on what is held out: answering takes time.
VALIDATION_ROWS = 64

_LOSSES = {
    GRPOLoss.DAPO: "dapo",
    GRPOLoss.GRPO: "grpo",
    GRPOLoss.BNPO: "bnpo",
    GRPOLoss.DR_GRPO: "dr_grpo",
}
_PROMPT_FEATURES = Features({"prompt": Json(), "answer": Value("string")})


class _GRPOTrainer(ReplayedOrder, FewMetrics, GRPOTrainer):
    pass


class _RLOOTrainer(ReplayedOrder, FewMetrics, RLOOTrainer):
    pass


def build_grpo_trainer(training: Training) -> GRPOTrainer:
    """TRL's GRPOTrainer.

    Raises:
        UserError: rewards, batch size or rows don't fit.
    """
    method = training.config.method.grpo
    assert method is not None
    # Dr. GRPO divides by a constant, neither by lengths nor by deviations (Liu et al. 2025, arXiv:2503.20783).
    scale = "none" if method.loss is GRPOLoss.DR_GRPO else "group"
    loss = {"loss_type": _LOSSES[method.loss], "scale_rewards": scale}
    return _build(_GRPOTrainer, GRPOConfig, training, method, loss)


def build_rloo_trainer(training: Training) -> RLOOTrainer:
    """TRL's RLOOTrainer.

    Raises:
        UserError: rewards, batch size or rows don't fit.
    """
    method = training.config.method.rloo
    assert method is not None
    return _build(_RLOOTrainer, RLOOConfig, training, method, {})


def build_prompts(rows: tuple[Row, ...]) -> Dataset:
    """Rows as TRL's prompts, with ``answer`` as a column for the rewards.

    Raises:
        UserError: a row has tools, which these trainers can't render.
    """
    require_no_tools(rows)
    columns = {
        "prompt": [row["prompt"] for row in rows],
        "answer": [row.get("answer") for row in rows],
    }
    # As JSON, messages keep the keys they have; Arrow's structs would fill in the others with nulls.
    return Dataset.from_dict(columns, features=_PROMPT_FEATURES)


def require_groups(numbers: Hyperparameters, world: int, generations: int, prompts: int) -> None:
    """Check that every step is made of whole groups of answers, and that there are prompts for one.

    Args:
        numbers: batch sizes, in answers.
        world: devices of the whole run.
        generations: answers to each prompt.
        prompts: rows to learn from.

    Raises:
        UserError: they don't fit; the message names the nearest batch sizes that do.
    """
    together = numbers.micro_batch_size * world
    unit = math.lcm(together, generations)
    if numbers.batch_size % unit:
        below = numbers.batch_size // unit * unit
        nearest = f"{below} or {below + unit}" if below else str(unit)
        message = (
            f"batchSize {numbers.batch_size} counts answers and has to be a multiple of generations {generations} "
            f"and of {together} (micro batch {numbers.micro_batch_size} x devices {world}): write {nearest}"
        )
        raise UserError("BatchSize", message)
    require_prompts(numbers.batch_size // generations, prompts)


def require_prompts(needed: int, prompts: int) -> None:
    """Check that there are prompts for one step: what is left over at the end of an epoch is not learned from.

    Raises:
        UserError: there are too few.
    """
    if prompts < needed:
        message = f"a step takes {needed} prompts, and there are {prompts}: lower batchSize, or add rows"
        raise UserError("BatchSize", message)


def _build(
    trainer: type[Any],
    arguments: type[Any],
    training: Training,
    method: GRPOMethod | RLOOMethod,
    more: dict[str, Any],
) -> Any:
    rows = training.rows
    numbers = training.config.hyperparameters
    require_groups(numbers, world_size(), method.generations, len(rows.train))
    functions, weights = build_reward_functions(
        method.rewards, training.tokenizer.all_special_ids, training.storage, build_model=build_model
    )
    return trainer(
        model=training.model,
        reward_funcs=functions,
        args=arguments(
            **common_arguments(training),
            num_generations=method.generations,
            num_generations_eval=1,
            temperature=method.temperature,
            beta=method.beta,
            max_completion_length=method.max_completion_length,
            reward_weights=weights,
            # Answers and their probabilities are to come from the same model.
            disable_dropout=True,
            use_vllm=False,
            **more,
        ),
        train_dataset=build_prompts(rows.train),
        eval_dataset=build_prompts(rows.validation[:VALIDATION_ROWS]) if rows.validation else None,
        processing_class=training.tokenizer,
        peft_config=training.peft_config,
        callbacks=training.callbacks,
    )
