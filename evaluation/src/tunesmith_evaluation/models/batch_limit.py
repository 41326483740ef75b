"""Size of batches: from the free memory of GPUs, and halved when memory runs out."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from tunesmith_contract.shared_rules.answer_memory import MAX_ROWS, AnswerMemory

from .placement import Placement, free_memory

#: Size of a batch on a CPU, where a larger one is no faster and an interrupted run would lose more of it.
CPU_ROWS, CPU_TOKENS = 32, 32_768

#: Share of the free memory that a batch may fill by its estimate.
BATCH_SHARE = 0.8


@dataclass(slots=True)
class BatchLimit:
    """Largest batch of one loaded model.

    Attributes:
        rows: number of prompts.
        cost: cost of a batch: tokens on a CPU, bytes on a GPU.
        token_cost: cost of a token of a prompt or answer.
        row_cost: cost of a prompt beside that of its tokens.
    """

    rows: int = CPU_ROWS
    cost: float = CPU_TOKENS
    token_cost: float = 1.0
    row_cost: float = 0.0

    def count_rows(self, tokens: int) -> int:
        """Number of prompts of a batch, at least one.

        Args:
            tokens: length of its longest prompt and answer.
        """
        return max(1, min(self.rows, int(self.cost / self._price(tokens))))

    def halve(self, rows: int, tokens: int) -> None:
        """Allow at most half the cost of a batch for which memory did not suffice."""
        self.cost = rows * self._price(tokens) / 2

    def _price(self, tokens: int) -> float:
        return tokens * self.token_cost + self.row_cost


def measure_limit(model: Any, memory: AnswerMemory, placement: Placement) -> BatchLimit:
    """Limit of a loaded model, by the free memory of its fullest GPU.

    A GPU holds the keys and values of its layers, whose number follows from its share of the weights.
    """
    if not placement.gpus:
        return BatchLimit()
    weights: Counter[Any] = Counter()
    for parameter in model.parameters():
        weights[parameter.device] += parameter.nbytes
    largest_share = max(weights.values()) / weights.total()
    return BatchLimit(
        rows=MAX_ROWS,
        cost=BATCH_SHARE * min(map(free_memory, placement.gpus)),
        token_cost=memory.key_value * largest_share + memory.activations,
        row_cost=memory.logits,
    )
