"""A validation loss that does not change with the size of the batches."""

from typing import Any

import torch
from transformers.trainer_utils import EvalLoopOutput


class WeightedValidation:
    """Mixed into a trainer: its validation loss is the mean over all tokens or rows, as the training loss is.

    transformers' is the mean of the batches' means: it changes with the size of the batches, and a row of a small last
    batch counts more than another.
    """

    _weight: torch.Tensor
    _loss: torch.Tensor

    def weigh(self, inputs: dict[str, Any]) -> torch.Tensor | int:
        """How many tokens or rows a batch's loss is the mean of."""
        raise NotImplementedError

    def evaluation_loop(self, *arguments: Any, **more: Any) -> EvalLoopOutput:
        """Evaluate, and put the mean over all batches of all workers in the place of the batches' mean."""
        trainer: Any = self
        self._loss = torch.zeros((), dtype=torch.float64, device=trainer.args.device)
        self._weight = torch.zeros((), dtype=torch.float64, device=trainer.args.device)
        output: EvalLoopOutput = super().evaluation_loop(*arguments, **more)  # type: ignore[misc]
        reduce = trainer.accelerator.reduce
        loss = reduce(self._loss, "sum") / reduce(self._weight, "sum")
        for name in (name for name in output.metrics if name.endswith("_loss")):
            output.metrics[name] = loss.item()
        return output

    def prediction_step(self, model: Any, inputs: dict[str, Any], *arguments: Any, **more: Any) -> Any:
        """Weigh a batch's loss by what it is the mean of."""
        weight = self.weigh(inputs)
        result = super().prediction_step(model, inputs, *arguments, **more)  # type: ignore[misc]
        self._loss += result[0].double() * weight
        self._weight += weight
        return result
