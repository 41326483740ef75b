"""Comparison of an evaluation with the memory of its GPUs."""

from tunesmith.api.reasons import EvalRunReason
from tunesmith.manifests.run_snapshots import FitVerdict
from tunesmith_contract.report import ModelReport
from tunesmith_contract.shared_rules.answer_memory import (
    GIB,
    AnswerMemory,
    Distribution,
    answer_memory,
    distribute,
    usable_memory,
)

from .memory import QUANTIZED

#: Largest value of ``compute.gpus`` of an EvalRun.
MAX_GPUS = 16


def judge_evaluation(
    model: ModelReport | None, gpus: int, answer_tokens: int, gpu_memory: int | None
) -> FitVerdict | None:
    """Memory verdict on an evaluation, or None for one without GPUs.

    Prompts are not known before the pod has read them, so the estimate is of the least memory that is needed.

    Args:
        model: report on the base model; None: unknown.
        gpus: number of GPUs of the pod.
        answer_tokens: length of the longest answer.
        gpu_memory: bytes of one GPU; None: unknown.
    """
    if gpus == 0:
        return None
    memory = _memory_of(model) if model else None
    if memory is None:
        message = (
            "The sizes of the base model are unknown: they are measured by the preparation of a FineTuneJob, for a "
            "candidate given by fineTuneJobRef. The pod compares them with its GPUs before it loads the model."
        )
        return FitVerdict(None, EvalRunReason.MODEL_SIZE_UNKNOWN, message)
    needed = memory.weights + memory.item(answer_tokens)
    if gpu_memory is None:
        message = (
            f"The model takes at least {_gibibytes(needed)}. The memory of the GPUs is unknown: not every node that "
            "the pod may be scheduled to has the label nvidia.com/gpu.memory, or there is no such node. The pod "
            "compares both before it loads the model."
        )
        return FitVerdict(None, EvalRunReason.GPU_MEMORY_UNKNOWN, message)
    if distribute(memory, answer_tokens, [gpu_memory] * gpus) is Distribution.COPIES:
        message = (
            f"Each of {gpus} GPUs holds a copy of the model, at least {_gibibytes(needed)} of the "
            f"{_gibibytes(usable_memory(gpu_memory))} that it has for it."
        )
        return FitVerdict(True, EvalRunReason.FITS, message)
    return _judge_spread(memory, gpus, answer_tokens, gpu_memory)


def _judge_spread(memory: AnswerMemory, gpus: int, answer_tokens: int, gpu_memory: int) -> FitVerdict:
    """Verdict on a model that is larger than a GPU."""
    fewest = next(
        (
            count
            for count in range(1, MAX_GPUS + 1)
            if distribute(memory, answer_tokens, [gpu_memory] * count) is not Distribution.NONE
        ),
        None,
    )
    needed = _gibibytes(memory.weights + memory.item(answer_tokens))
    usable = _gibibytes(usable_memory(gpu_memory))
    if fewest is not None and fewest <= gpus:
        enough = f" {fewest} GPUs are enough, and as fast." if fewest < gpus else ""
        message = (
            f"The model is spread over {gpus} GPUs, which work one after the other: it takes at least {needed}, and a "
            f"GPU has {usable} for it.{enough}"
        )
        return FitVerdict(True, EvalRunReason.FITS, message)
    remedy = f"Write compute.gpus: {fewest}, or choose" if fewest is not None else "Choose"
    have = f"a GPU has {usable}" if gpus == 1 else f"each of {gpus} GPUs has {usable}"
    message = f"The model takes at least {needed}, but {have} for it. {remedy} GPUs with more memory."
    return FitVerdict(False, EvalRunReason.DOES_NOT_FIT, message)


def _memory_of(model: ModelReport) -> AnswerMemory | None:
    """Memory of the model, or None if its sizes are unknown."""
    if model.shape is None or not model.shape.layers:
        return None
    stored = None
    if model.quantization is not None:
        stored = int(model.parameters * QUANTIZED.get(model.quantization, 1.0))
    return answer_memory(model.parameters, model.shape, stored)


def _gibibytes(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
