"""Values for ``Auto`` that the operator and a trainer without a cluster share."""

from math import ceil, lcm

from tunesmith_contract.methods import KTOLoss, KTOMethod, Method, PretrainingMethod, SFTMethod

MAX_BATCH = 16
STEPS_PER_EPOCH = 32

CHECKPOINTED_PARAMETERS = 10**9

BFLOAT16_ACCUMULATION_ROWS = 8

KTO_MIN_ROWS = 2
KTO_NEEDS_ROWS = (
    "KTO compares each row with others of its micro-batch: write a microBatchSize of "
    f"{KTO_MIN_ROWS} or more and a batchSize of at least as many rows for each device, "
    "or kto: {loss: APOZeroUnpaired}."
)


def choose_packing(automatic_batch: bool, gpus: int) -> bool:
    """True where short rows shall share a sequence.

    On GPUs, where the batch size is Auto too, since a packed batch holds more rows than people counted.
    torchtune measured 3.4 times the tokens per second (Llama 3.2 3B, A100, 4096 tokens: 2,091 to 7,075). Without a
    GPU attention over a long sequence costs more than padding does.
    """
    return gpus > 0 and automatic_batch


def choose_batch_size(sequences: int, devices: int = 1, group: int = 1, least: int = 1) -> int:
    """Rows per optimizer step, over all devices; of an online method, answers.

    16 rows, or so few (a power of two) that an epoch has at least 32 steps; whole groups, and a multiple of the
    devices. "LoRA Without Regret": large batches cost LoRA more than they cost full fine-tuning; it stays below 32.
    Of an online method 16 prompts, each with its group of answers: as DeepSeekMath (arXiv:2402.03300), whose batch of
    1,024 answers is 64 each to 16 questions.

    Args:
        sequences: rows, or packed sequences, of an epoch.
        group: answers to one prompt.
        least: rows that a device needs at once.
    """
    wanted = MAX_BATCH
    while wanted > 1 and sequences < wanted * STEPS_PER_EPOCH:
        wanted //= 2
    unit = lcm(devices * least, group)
    return ceil(wanted * group / unit) * unit


def choose_activation_checkpointing(parameters: int, gpus: int) -> bool:
    """True where activations shall be recomputed instead of kept.

    On GPUs, from a billion parameters on. torchtune measured 42 % less memory for 21 % less speed (Llama 3.2 3B,
    A100: 42.9 to 24.9 GiB, 9,174 to 7,210 tokens per second); small models have memory to spare.
    """
    return gpus > 0 and parameters >= CHECKPOINTED_PARAMETERS


def accumulates_in_float32(rows: int) -> bool:
    """True where DeepSpeed shall add up the gradients of a step's passes in float32, not in bfloat16.

    bfloat16 keeps 8 binary digits: of a gradient that is added to the sum of many, the last digits are lost, and
    below 1/512 of the sum all of them. For few passes the loss is as small as that of each gradient's own rounding.
    Rows count and not passes, so that a smaller micro batch never takes more memory.

    Args:
        rows: rows of a step on each device.
    """
    return rows > BFLOAT16_ACCUMULATION_ROWS


def count_sequences(method: Method, rows: int, tokens: int) -> int:
    """Number of sequences of an epoch: rows, or packed sequences."""
    return ceil(tokens / method.max_length) if is_packed(method) else rows


def count_steps(sequences: int, batch_size: int, group: int, epochs: int) -> int:
    """Optimizer steps of so many epochs; the last batch of an epoch may be smaller than the others."""
    return ceil(sequences * group / batch_size) * epochs


def is_packed(method: Method) -> bool:
    """True where several rows share a sequence."""
    member = method.member
    return isinstance(member, SFTMethod | PretrainingMethod) and member.packing


def rows_at_once(method: Method) -> int:
    """Smallest micro batch: KTO compares a row with others of the same one."""
    member = method.member
    return KTO_MIN_ROWS if isinstance(member, KTOMethod) and member.loss is KTOLoss.KTO else 1


def answers_to_a_prompt(method: Method) -> int:
    """Answers that a method makes to each prompt, which go through the model together; else 1."""
    online = method.grpo or method.rloo
    return online.generations if online else 1
