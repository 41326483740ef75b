"""The order of prompts in online training, the same after an interruption as without one.

TRL's sampler draws each epoch's order from a generator that remembers the epochs before. A run that resumes in its
second epoch begins with a new generator, and so sees the first epoch's order again. Here an epoch's order follows from
the seed and the epoch's number alone.
"""

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import Sampler
from trl.trainer.utils import RepeatSampler


class EpochSampler(Sampler[int]):
    """A shuffling RepeatSampler whose order depends on its seed and the number of the epoch.

    Args:
        sampler: what is sampled.
        steps_done: optimizer steps so far, when an epoch begins.
    """

    def __init__(self, sampler: RepeatSampler, steps_done: Callable[[], int]) -> None:
        self._sampler = sampler
        self._steps_done = steps_done

    def __iter__(self) -> Iterator[int]:
        steps_per_epoch = max(1, self._sampler.num_samples // self._sampler.batch_size)
        epoch = self._steps_done() // steps_per_epoch
        self._sampler.generator.manual_seed(self._sampler.seed + epoch)
        return iter(self._sampler)

    def __len__(self) -> int:
        return len(self._sampler)


class ReplayedOrder:
    """Mixed into an online trainer of TRL's: prompts come in an order that a resumed run repeats."""

    state: Any

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        sampler = super()._get_train_sampler(dataset)  # type: ignore[misc]
        return EpochSampler(sampler, lambda: self.state.global_step)
