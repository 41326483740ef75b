"""Comparison of an evaluation with the GPUs that its pod may get, and their memory."""

from collections.abc import Sequence

from tunesmith.api.reasons import EvalRunReason
from tunesmith.manifests.run_snapshots import FitVerdict
from tunesmith_contract.report import ModelReport
from tunesmith_contract.shared_rules.answer_memory import GIB, AnswerMemory, answer_memory, count_rows
from tunesmith_contract.shared_rules.gpus import usable_memory

from .gpus import ReachableGPUs
from .memory import QUANTIZED

#: Largest value of ``compute.gpus`` of an EvalRun.
MAX_GPUS = 16


def judge_evaluation(
    model: ModelReport | None,
    gpus: int,
    answer_tokens: int,
    reachable: ReachableGPUs,
    unknown: Sequence[str] = (),
) -> FitVerdict | None:
    """Verdict on an evaluation, or None for one without GPUs.

    Prompts are not known before the pod has read them, so the estimate is of the least memory that is needed.

    Args:
        model: report on the largest model whose size is known; None: none is.
        gpus: number of GPUs of the pod.
        answer_tokens: length of the longest answer.
        reachable: what is known of the GPUs that the pod may get.
        unknown: models that the pod loads, too, and whose sizes are unknown.
    """
    if gpus == 0:
        return None
    if reachable.obstacle is not None:
        return FitVerdict(False, EvalRunReason(reachable.obstacle.reason), reachable.obstacle.message)
    memory = _memory_of(model) if model else None
    if memory is None:
        message = (
            "The sizes of the base model are unknown: they are measured by the preparation of a FineTuneJob, for a "
            "candidate given by fineTuneJobRef. The pod compares them with its GPUs before it loads the model."
        )
        return FitVerdict(None, EvalRunReason.MODEL_SIZE_UNKNOWN, message)
    needed = memory.weights + memory.item(answer_tokens)
    gpu_memory = reachable.memory
    if gpu_memory is None:
        message = (
            f"The model takes at least {_gibibytes(needed)}. {reachable.note} The pod compares both before it loads "
            "the model."
        )
        return FitVerdict(None, EvalRunReason.GPU_MEMORY_UNKNOWN, message)
    fewest = _fewest_gpus(memory, answer_tokens, gpu_memory)
    have = f"a GPU has {_gibibytes(usable_memory(gpu_memory))} for it"
    if fewest is None or fewest > gpus:
        remedy = "Choose" if fewest is None else f"Write compute.gpus: {fewest}, or choose"
        message = (
            f"The model takes at least {_gibibytes(needed)}, but {have}, and compute.gpus is {gpus}. {remedy} GPUs "
            f"with more memory. {reachable.note}"
        )
        return FitVerdict(False, EvalRunReason.DOES_NOT_FIT, message.rstrip())
    message = f"The model takes at least {_gibibytes(needed)}, and {have}. {reachable.note}".rstrip()
    if fewest > 1:
        message += (
            f" A copy of it is spread over at least {fewest} GPUs, which work one after the other: choose a number of "
            f"GPUs that is a multiple of {fewest}, or GPUs with more memory."
        )
    if unknown:
        message += (
            f" The sizes of other models are unknown ({', '.join(unknown)}). The pod compares them with its GPUs "
            "before it loads them."
        )
        return FitVerdict(None, EvalRunReason.MODEL_SIZE_UNKNOWN, message)
    return FitVerdict(True, EvalRunReason.FITS, message)


def _fewest_gpus(memory: AnswerMemory, answer_tokens: int, gpu_memory: int) -> int | None:
    """Smallest number of GPUs that hold the model, or None if it is not allowed."""
    counts = range(1, MAX_GPUS + 1)
    return next((count for count in counts if count_rows(memory, answer_tokens, [gpu_memory] * count)), None)


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
