"""Verdict on whether an AdapterDeployment can serve the artifact of a job, given before training.

The limits of vLLM are taken from its source (``lora/peft_helper.py``, ``config/lora.py``, ``SupportsLoRA`` of its
models); ``generated.engine_architectures`` lists its architectures.
"""

from dataclasses import dataclass

from tunesmith_contract.report import ModelReport
from tunesmith_contract.run_config import AdapterType, OutputFormat, TrainConfig

from .generated.engine_architectures import WITH_ADAPTERS, WITHOUT_ADAPTERS

#: Largest value of vLLM's ``--max-lora-rank``.
MAX_RANK = 512

ALL_LINEAR = "all-linear"

_MERGE = "write output.formats: [Adapter, Merged] and serve the merged model"
_MERGED = "The merged model can be served as a base model of its own."


@dataclass(frozen=True, slots=True)
class Servability:
    """Servability verdict.

    Attributes:
        servable: None if it is unknown until it is tried.
        message: an explanation that names the field and what to change.
    """

    servable: bool | None
    message: str


def judge_servability(model: ModelReport, run: TrainConfig) -> Servability:
    """Verdict on serving the artifact of a run as an adapter."""
    if run.method.reward is not None:
        return Servability(
            False,
            "A reward model returns scores and not answers, so no AdapterDeployment can serve it. Use it as a reward "
            "of another job.",
        )
    if run.adapter is None:
        return Servability(
            False,
            "All weights are trained: the result is a complete model, which is served as a base model "
            "(AdapterDeployment spec.baseModel), not as an adapter. For an adapter, write adapter: {}.",
        )
    obstacle = _find_obstacle(model, run)
    if obstacle is not None:
        merged = OutputFormat.MERGED in run.formats
        return Servability(
            False, f"{obstacle}. {_MERGED}" if merged else f"{obstacle}: {_advice(model, run)}."
        )
    if model.architecture not in WITH_ADAPTERS:
        return Servability(
            None,
            f"The serving engine does not list {model.architecture}: whether it can serve adapters on it is known "
            "only when one is deployed.",
        )
    return Servability(True, "The serving engine can serve the adapter.")


def _find_obstacle(model: ModelReport, run: TrainConfig) -> str | None:
    """Cause for which the engine can't serve the adapter, without a full stop, or None."""
    adapter = run.adapter
    assert adapter is not None
    if adapter.type is AdapterType.DORA:
        return "adapter.type: the serving engine can't serve DoRA adapters"
    if adapter.rank > MAX_RANK:
        return f"adapter.rank: the serving engine serves ranks up to {MAX_RANK}, not {adapter.rank}"
    if not_linear := _not_linear(model, adapter.target_modules):
        return (
            "adapter.targetModules: the serving engine serves adapters on linear layers, not on "
            f"{', '.join(not_linear)}"
        )
    if model.architecture in WITHOUT_ADAPTERS:
        return f"baseModel: the serving engine serves {model.architecture} only without adapters"
    if model.quantization is not None:
        return (
            f"baseModel: its weights are already quantized ({model.quantization}), and the agent verifies adapters on "
            "weights in full precision"
        )
    if model.template_changed:
        return (
            "baseModel: its chat template does not mark answers, so training uses another chat template than the "
            "serving engine"
        )
    return None


def _advice(model: ModelReport, run: TrainConfig) -> str:
    """Smallest change that makes the result servable."""
    adapter = run.adapter
    assert adapter is not None
    if model.quantization is not None:
        return "name the model in full precision; adapter.type: QLoRA trains it in 4 bits all the same"
    if adapter.type is AdapterType.DORA:
        return f"write adapter.type: LoRA, or {_MERGE}"
    if adapter.rank > MAX_RANK:
        return f"write {MAX_RANK} or less, or {_MERGE}"
    if _not_linear(model, adapter.target_modules):
        return f"leave them out, or {_MERGE}"
    return _MERGE


def _not_linear(model: ModelReport, targets: tuple[str, ...]) -> list[str]:
    """Target modules that are not linear layers of the model, such as the embedding or the output layer."""
    if targets == (ALL_LINEAR,) or model.shape is None or not model.shape.linears:
        return []
    linear = {layer.name for layer in (*model.shape.linears, *model.shape.experts)}
    return [name for name in targets if name.rpartition(".")[2] not in linear]
