"""Online reinforcement learning trainers: GRPO and RLOO.

``batchSize`` counts answers, as in TRL: one optimizer step uses batchSize / generations prompts with ``generations``
answers each. So batchSize is a multiple of ``generations`` and of micro batch x devices; the answers to one prompt
may be spread over devices.
"""

import math
from functools import partial
from typing import Any

from datasets import Dataset, Features, Json, Value
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from tunesmith_contract.methods import GRPOLoss, GRPOMethod, RLOOMethod
from tunesmith_contract.run_config import Hyperparameters
from tunesmith_data.failures import UserError
from tunesmith_data.rewards.build import build_reward_functions, require_no_tools
from tunesmith_data.rows.schema.formats import Row
from tunesmith_trainer.gpu.device import worker_device
from tunesmith_trainer.rewards.model_scorer import build_model_scorer
from tunesmith_trainer.train.arguments import common_arguments
from tunesmith_trainer.train.context import TrainingContext
from tunesmith_trainer.train.distributed.control_group import wait_for_all
from tunesmith_trainer.train.distributed.parallel import is_first_rank, whole_models, world_size

from .trainer_mixins import EpochSeededSampling, LoggedMetricsFilter, SavedCheckpoints

# Maximum number of validation rows, since generating their answers takes time.
_MAX_VALIDATION_ROWS = 64

_LOSSES = {
    GRPOLoss.DAPO: "dapo",
    GRPOLoss.GRPO: "grpo",
    GRPOLoss.BNPO: "bnpo",
    GRPOLoss.DR_GRPO: "dr_grpo",
}
_PROMPT_FEATURES = Features({"prompt": Json(), "answer": Value("string")})


class _GRPOTrainer(SavedCheckpoints, EpochSeededSampling, LoggedMetricsFilter, GRPOTrainer):
    pass


class _RLOOTrainer(SavedCheckpoints, EpochSeededSampling, LoggedMetricsFilter, RLOOTrainer):
    pass


def build_grpo_trainer(training: TrainingContext) -> GRPOTrainer:
    """Build TRL's GRPOTrainer.

    Raises:
        UserError: rewards, batch size or rows don't fit.
    """
    method = training.config.method.grpo
    assert method is not None
    # Dr. GRPO normalizes neither by answer length nor by standard deviation (Liu et al. 2025, arXiv:2503.20783).
    scale = "none" if method.loss is GRPOLoss.DR_GRPO else "group"
    loss = {"loss_type": _LOSSES[method.loss], "scale_rewards": scale}
    trainer: GRPOTrainer = _build(_GRPOTrainer, GRPOConfig, training, method, loss)
    return trainer


def build_rloo_trainer(training: TrainingContext) -> RLOOTrainer:
    """Build TRL's RLOOTrainer.

    Raises:
        UserError: rewards, batch size or rows don't fit.
    """
    method = training.config.method.rloo
    assert method is not None
    trainer: RLOOTrainer = _build(_RLOOTrainer, RLOOConfig, training, method, {})
    return trainer


def build_prompts(rows: tuple[Row, ...]) -> Dataset:
    """Data set with columns ``prompt`` (text or messages) and ``answer`` (for rewards; may be null).

    Raises:
        UserError: a row has tools, which these trainers can't render.
    """
    require_no_tools(rows)
    columns = {
        "prompt": [row["prompt"] for row in rows],
        "answer": [row.get("answer") for row in rows],
    }
    # As JSON, messages keep their own keys; Arrow's structs would add missing ones with nulls.
    return Dataset.from_dict(columns, features=_PROMPT_FEATURES)


def prompt_arguments(training: TrainingContext) -> dict[str, Any]:
    """Arguments of a trainer that generates answers to prompts: model, data sets, tokenizer, adapter, callbacks.

    Raises:
        UserError: a row has tools.
    """
    rows = training.rows
    return {
        "model": training.model,
        "train_dataset": build_prompts(rows.train),
        "eval_dataset": build_prompts(rows.validation[:_MAX_VALIDATION_ROWS]) if rows.validation else None,
        "processing_class": training.tokenizer,
        "peft_config": training.peft_config,
        "callbacks": training.callbacks,
    }


def require_groups(numbers: Hyperparameters, world: int, generations: int, prompts: int) -> None:
    """Check that every step has complete groups of answers, and that there are enough prompts for one.

    Args:
        numbers: batch sizes, in answers.
        world: number of devices of the run.
        generations: answers per prompt.
        prompts: number of training rows.

    Raises:
        UserError: they don't fit; the message names the nearest batch sizes that do.
    """
    answers_per_pass = numbers.micro_batch_size * world
    unit = math.lcm(answers_per_pass, generations)
    if numbers.batch_size % unit:
        below = numbers.batch_size // unit * unit
        nearest = f"{below} or {below + unit}" if below else str(unit)
        message = (
            f"batchSize {numbers.batch_size} counts answers and has to be a multiple of generations {generations} "
            f"and of {answers_per_pass} (micro batch {numbers.micro_batch_size} x devices {world}): write {nearest}"
        )
        raise UserError("BatchSize", message)
    require_prompts(numbers.batch_size // generations, prompts)


def require_prompts(needed: int, prompts: int) -> None:
    """Check that there are enough prompts for one step; incomplete batches at the end of an epoch are dropped.

    Raises:
        UserError: there are too few.
    """
    if prompts < needed:
        message = f"a step takes {needed} prompts, and there are {prompts}: lower batchSize, or add rows"
        raise UserError("BatchSize", message)


def _build(
    trainer: type[Any],
    arguments: type[Any],
    training: TrainingContext,
    method: GRPOMethod | RLOOMethod,
    loss_arguments: dict[str, Any],
) -> Any:
    numbers = training.config.hyperparameters
    require_groups(numbers, world_size(), method.generations, len(training.rows.train))
    build_model = partial(
        build_model_scorer, device=worker_device(training.config), read_files=is_first_rank()
    )
    with whole_models():
        functions, weights = build_reward_functions(
            method.rewards,
            training.tokenizer.all_special_ids,
            training.storage,
            build_model=build_model,
        )
    # The first one reads all bytes of the reward models, to verify them: none trains before that.
    wait_for_all()
    return trainer(
        reward_funcs=functions,
        args=arguments(
            **common_arguments(training),
            num_generations=method.generations,
            num_generations_eval=1,
            temperature=method.temperature,
            beta=method.beta,
            max_completion_length=method.max_completion_length,
            reward_weights=weights,
            # Dropout would change the probabilities between generation and update.
            disable_dropout=True,
            use_vllm=False,
            # It would cast the trained weights to bfloat16 in place before each generation.
            use_transformers_continuous_batching=False,
            **loss_arguments,
        ),
        **prompt_arguments(training),
    )
