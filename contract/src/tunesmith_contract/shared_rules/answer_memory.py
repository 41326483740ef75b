"""GPU memory of a model that answers prompts: weights, keys and values, activations, logits."""

from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith_contract.report import ModelShape

GIB = 2**30

#: Bytes of a number in bfloat16 and in float32.
BFLOAT16, FLOAT32 = 2, 4

#: Part of a GPU's memory that never reaches a program: the driver's own, the CUDA context, fragments.
UNUSABLE_SHARE, UNUSABLE_BYTES = 0.06, 0.4 * GIB

#: Most items of a batch; more make a GPU hardly faster.
MAX_ROWS = 256


@dataclass(frozen=True, slots=True)
class AnswerMemory:
    """Memory of a model in bfloat16 and of what it computes, in bytes.

    Attributes:
        weights: all weights.
        largest_block: what can't be divided between two GPUs: a layer or the embedding.
        key_value: keys and values of one token, in all layers.
        activations: what one layer computes of one token of a prompt.
        logits: logits of one answer's next token, with the copies that are made of them.
    """

    weights: float
    largest_block: float
    key_value: float
    activations: float
    logits: float

    def item(self, tokens: int) -> float:
        """Bytes of one item beside the weights.

        Args:
            tokens: length of its prompt and its answer.
        """
        return (self.key_value + self.activations) * tokens + self.logits


def answer_memory(parameters: int, shape: ModelShape, stored_bytes: int | None = None) -> AnswerMemory:
    """Memory of a model.

    Every layer is counted with keys and values of all tokens; sliding windows and linear attention take less.

    Args:
        parameters: number of weights.
        shape: sizes of the model.
        stored_bytes: size of its files, which is smaller than that of the weights in bfloat16 if they are quantized.
    """
    weights = BFLOAT16 * parameters if stored_bytes is None else min(BFLOAT16 * parameters, stored_bytes)
    embedding = BFLOAT16 * shape.vocabulary_size * shape.hidden_size
    rest = max(0, weights - embedding * (1 if shape.tied_embeddings else 2))
    heads = shape.attention_heads * shape.head_size
    # The residual stream and its norm in float32, the feed-forward block's three products, queries, attention's result,
    # and keys and values repeated for every head.
    numbers = 6 * shape.hidden_size + 3 * shape.intermediate_size + 4 * heads
    return AnswerMemory(
        weights=float(weights),
        largest_block=float(max(embedding, rest / max(1, shape.layers))),
        key_value=float(2 * BFLOAT16 * shape.layers * shape.key_value_heads * shape.head_size),
        activations=float(BFLOAT16 * numbers + FLOAT32 * shape.hidden_size),
        logits=float((BFLOAT16 + 2 * FLOAT32) * shape.vocabulary_size),
    )


def usable_memory(size: float) -> float:
    """Bytes of a GPU that a program can use.

    Args:
        size: bytes of the GPU.
    """
    return max(0.0, size * (1 - UNUSABLE_SHARE) - UNUSABLE_BYTES)


def count_rows(memory: AnswerMemory, tokens: int, sizes: Sequence[int]) -> int:
    """Number of items that a model on these GPUs answers at once; 0 if it does not fit on them.

    Args:
        memory: memory of the model.
        tokens: length of the longest item.
        sizes: bytes of each GPU.
    """
    # Blocks are whole, so up to one of them is left over on each GPU but the last.
    gaps = memory.largest_block * (len(sizes) - 1)
    free = sum(map(usable_memory, sizes)) - memory.weights - gaps
    return max(0, min(MAX_ROWS, int(free / memory.item(tokens))))


def count_gpus_per_copy(memory: AnswerMemory, tokens: int, sizes: Sequence[int]) -> int | None:
    """Number of GPUs of each copy of a model with which all copies together are fastest, or None if none fits.

    More GPUs for a copy leave more memory for items, but work one after the other. A step of generation takes the time
    to read the weights once, and the keys and values of each item.

    Args:
        memory: memory of the model.
        tokens: length of the longest item.
        sizes: bytes of each GPU; the smallest counts.
    """
    speeds: dict[int, float] = {}
    for count in range(1, len(sizes) + 1):
        rows = count_rows(memory, tokens, [min(sizes)] * count)
        step = memory.weights + rows * memory.key_value * tokens
        speeds[count] = len(sizes) // count * rows / step
    best = max(speeds, key=lambda count: (speeds[count], -count))
    return best if speeds[best] else None
