"""Mixins for TRL trainers: saved models, weighted validation loss, pre-tokenized rows, logged metrics, prompt order.

They call methods of the trainer that they are mixed into by ``super()``.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import Sampler
from transformers.trainer_utils import EvalLoopOutput
from trl.trainer.utils import RepeatSampler

from tunesmith_contract.progress import REWARD
from tunesmith_trainer.train.distributed.control_group import wait_for_all

_EVALUATION_METRICS = frozenset(
    {REWARD, "reward_std", "kl", "completions/mean_length", "completions/clipped_ratio"}
)
_LOGGED_METRICS = {
    "train": _EVALUATION_METRICS
    | {"num_tokens", "entropy", "frac_reward_zero_std", "clip_ratio/region_mean"},
    "eval": _EVALUATION_METRICS,
}


class SavedCheckpoints:
    """Checkpoints of several ranks, without TRL's draft of a model card: the artifact gets a card of its own.

    All ranks wait for the model that the first one writes, outside the time limit of a step. In a checkpoint the next
    thing that the others do is a barrier of transformers or DeepSpeed, which has that limit.
    """

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model; as part of a checkpoint all ranks call it, and wait for the first one here."""
        super().save_model(output_dir, _internal_call)  # type: ignore[misc]
        if _internal_call:
            wait_for_all()

    def create_model_card(self, *arguments: Any, **options: Any) -> None:
        """Create no card."""


class WeightedValidation:
    """Validation loss as the mean over all tokens or rows, like the training loss.

    transformers averages the means of the batches. That value changes with the batch size, and a row of a small last
    batch has more weight than others.
    """

    _weight_sum: torch.Tensor
    _loss_sum: torch.Tensor

    def batch_weight(self, inputs: dict[str, Any]) -> torch.Tensor | int:
        """Number of tokens or rows that a batch's loss is the mean of."""
        raise NotImplementedError

    def evaluation_loop(self, *arguments: Any, **options: Any) -> EvalLoopOutput:
        """Evaluate, and replace the loss by the weighted mean over all batches of all workers."""
        trainer: Any = self
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=trainer.args.device)
        self._weight_sum = torch.zeros((), dtype=torch.float64, device=trainer.args.device)
        output: EvalLoopOutput = super().evaluation_loop(*arguments, **options)  # type: ignore[misc]
        reduce = trainer.accelerator.reduce
        loss = reduce(self._loss_sum, "sum") / reduce(self._weight_sum, "sum")
        metrics: dict[str, float] = output.metrics or {}
        metrics.update({name: loss.item() for name in metrics if name.endswith("_loss")})
        return output

    def prediction_step(self, model: Any, inputs: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        """Evaluate a batch, and add its weighted loss to the sum."""
        weight = self.batch_weight(inputs)
        result = super().prediction_step(model, inputs, *arguments, **options)  # type: ignore[misc]
        self._loss_sum += result[0].double() * weight
        self._weight_sum += weight
        return result


class PretokenizedDataset:
    """Data set of token ids used as it is; TRL's own tokenization would differ from what prepare counted."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset


class LoggedMetricsFilter:
    """Restriction of an online trainer's log to a fixed set of metrics and each reward's mean.

    Progress holds 64 metrics at most. TRL's online trainers collect about 30 while training, as many in evaluation,
    and four more for each reward. Times are excluded too, since the same training has to give the same history.
    """

    model: Any
    _metrics: Any

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the selected metrics."""
        mode = "train" if self.model.training else "eval"
        for name in set(self._metrics[mode]) - _LOGGED_METRICS[mode]:
            if not (name.startswith("rewards/") and name.endswith("/mean")):
                del self._metrics[mode][name]
        if REWARD in self._metrics[mode]:
            # With one answer per prompt the loss is always 0: the reward is the measure.
            logs.pop("eval_loss", None)
        super().log(logs, start_time)  # type: ignore[misc]


class EpochSampler(Sampler[int]):
    """RepeatSampler whose order depends on its seed and the epoch number alone.

    TRL's sampler draws each epoch's order from a generator that depends on the epochs before. A run that resumes in
    its second epoch starts with a new generator, and would see the first epoch's order again.

    Args:
        sampler: the sampler to wrap.
        steps_done: returns the number of optimizer steps done, at the start of an epoch.
    """

    def __init__(self, sampler: RepeatSampler, steps_done: Callable[[], int]) -> None:
        self._sampler: Any = sampler
        self._steps_done = steps_done

    def __iter__(self) -> Iterator[int]:
        steps_per_epoch = max(1, self._sampler.num_samples // self._sampler.batch_size)
        epoch = self._steps_done() // steps_per_epoch
        self._sampler.generator.manual_seed(self._sampler.seed + epoch)
        return iter(self._sampler)

    def __len__(self) -> int:
        return len(self._sampler)


class EpochSeededSampling:
    """Order of an online trainer's prompts that a resumed run repeats."""

    state: Any

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        sampler = super()._get_train_sampler(dataset)  # type: ignore[misc]
        return EpochSampler(sampler, lambda: self.state.global_step)
