"""Whether an AdapterDeployment can serve what a job will make, said once the model is known and before it is trained.

What vLLM refuses is read from its source (``lora/peft_helper.py``, ``config/lora.py``, the models' ``SupportsLoRA``);
``engine_architectures`` holds its list of architectures.
"""

from dataclasses import dataclass

from tunesmith_contract.report import ModelReport
from tunesmith_contract.run_config import AdapterType, OutputFormat, TrainConfig

from .engine_architectures import WITH_ADAPTERS, WITHOUT_ADAPTERS

#: The largest of vLLM's ``--max-lora-rank``.
MAX_RANK = 512

ALL_LINEAR = "all-linear"

_MERGE = "write output.formats: [Adapter, Merged] and serve the merged model"
_MERGED = "The merged model can be served as a base model of its own."


@dataclass(frozen=True, slots=True)
class Servability:
    """The verdict.

    Attributes:
        servable: None where nobody knows before it is tried.
        message: a sentence that names the field and the way out.
    """

    servable: bool | None
    message: str


def judge_servability(model: ModelReport, run: TrainConfig) -> Servability:
    """Whether the engine can serve what comes out as an adapter."""
    if run.method.reward is not None:
        return _no(
            "A reward model gives numbers, not answers: no AdapterDeployment serves it. Name it as a reward."
        )
    if run.adapter is None:
        return _no(
            "All weights are trained: what comes out is a whole model, which is served as a base model of its own "
            "(AdapterDeployment spec.baseModel), not as an adapter. For an adapter, write adapter: {}."
        )
    obstacle = _obstacle(model, run)
    if obstacle is not None:
        merged = OutputFormat.MERGED in run.formats
        return _no(f"{obstacle}. {_MERGED}" if merged else f"{obstacle}: {_advice(model, run)}.")
    if model.architecture not in WITH_ADAPTERS:
        return Servability(
            None,
            f"The serving engine does not list {model.architecture}: whether it serves adapters on it shows when one "
            "is deployed.",
        )
    return Servability(True, "The serving engine can serve the adapter.")


def _obstacle(model: ModelReport, run: TrainConfig) -> str | None:
    """What the engine can't do, without a full stop; None: nothing is in the way."""
    adapter = run.adapter
    assert adapter is not None
    if adapter.type is AdapterType.DORA:
        return "adapter.type: the serving engine can't serve DoRA adapters"
    if adapter.rank > MAX_RANK:
        return f"adapter.rank: the serving engine serves ranks up to {MAX_RANK}, not {adapter.rank}"
    others = _not_linear(model, adapter.target_modules)
    if others:
        return f"adapter.targetModules: the serving engine serves adapters on linear layers, not on {', '.join(others)}"
    if model.architecture in WITHOUT_ADAPTERS:
        return f"baseModel: the serving engine serves {model.architecture} whole only, without adapters"
    if model.quantization is not None:
        return (
            f"baseModel: its weights are quantised already ({model.quantization}), and the serving engine proves an "
            "adapter on the weights in full precision"
        )
    if model.template_changed:
        return (
            "baseModel: its chat template can't tell answers from questions, so training asks by another template than "
            "the serving engine will"
        )
    return None


def _advice(model: ModelReport, run: TrainConfig) -> str:
    """The way out that costs the least."""
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
    """Targets that are no linear layers of the model, such as the embedding or the output layer."""
    if targets == (ALL_LINEAR,) or model.shape is None or not model.shape.linears:
        return []
    known = {each.name for each in (*model.shape.linears, *model.shape.experts)}
    return [name for name in targets if name.rpartition(".")[2] not in known]


def _no(message: str) -> Servability:
    return Servability(False, message)
