"""Base model and prepared rows in memory, from which one training starts, or several one after the other."""

from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from transformers import set_seed

from tunesmith_contract.run_config import TrainConfig
from tunesmith_data.models.rendering import Renderer
from tunesmith_data.models.tokenizer import load_tokenizer, set_padding
from tunesmith_data.pod.workspace import Workspace
from tunesmith_data.prepare import learns_answers_only, load_prepared
from tunesmith_data.rows.table.split import Split
from tunesmith_trainer.gpu.device import uses_gpu, worker_device

from .kernels import Kernels, check_kernels, choose_kernels, detect_hardware, detect_support
from .models import add_stored_adapter, load_model
from .starting_point import StartingPoint


@dataclass(frozen=True, slots=True)
class LoadedBase:
    """A base model with what belongs to it.

    Attributes:
        start: the weights that were loaded, and the adapter that training continues from.
        model: the model, on whose layers adapters are put while they are trained.
        kernels: attention implementation and fused kernels.
        renderer: renders rows with the model's tokenizer and chat template.
        rows: the prepared rows.
        loaded: state of the model after it was loaded.
    """

    start: StartingPoint
    model: Any
    kernels: Kernels
    renderer: Renderer
    rows: Split
    loaded: "ModelState"

    def model_to_train(self, config: TrainConfig) -> Any:
        """The model, with the adapter that training continues from if there is one."""
        adapter = self.start.adapter
        return self.model if adapter is None else add_stored_adapter(self.model, adapter, config)


class ModelState:
    """Modules, hooks and attributes of a model at one moment, without a copy of its weights.

    Trainers put adapters in the place of layers, and replace methods of the model. PEFT's own removal leaves the
    methods, and the trained copies of whole layers.

    Args:
        model: the model.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._attributes = [(module, _copy_attributes(module)) for module in model.modules()]
        self._trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]

    def restore(self) -> None:
        """Bring the model back to this moment; the weights must not have been trained."""
        for module, attributes in self._attributes:
            vars(module).clear()
            vars(module).update({name: _copy_table(value) for name, value in attributes.items()})
        for parameter, requires_grad in self._trained:
            parameter.requires_grad_(requires_grad)
            parameter.grad = None


def load_base(config: TrainConfig, start: StartingPoint, workspace: Workspace) -> LoadedBase:
    """Load tokenizer, rows and model, with the fastest kernels that fit both.

    Raises:
        DataError: the rows are not what was prepared.
        UserError: the model can't be trained so.
    """
    rows = load_prepared(workspace.prepared, config.dataset_digest)
    tokenizer = load_tokenizer(start.folder)
    set_padding(tokenizer)
    on_gpu = uses_gpu(config)
    # Type of matrix multiplication: bfloat16 on a GPU, whatever the type of the weights.
    compute_dtype = torch.bfloat16 if on_gpu else torch.float32
    chosen = choose_kernels(
        detect_hardware(on_gpu=on_gpu),
        compute_dtype,
        detect_support(start.folder),
        packing=getattr(config.method.member, "packing", False),
    )
    kernels = check_kernels(chosen, start.folder, compute_dtype, worker_device(config))
    set_seed(config.hyperparameters.seed)  # a reward model's new output layer is random
    model = load_model(start.folder, config, kernels)
    return LoadedBase(
        start=start,
        model=model,
        kernels=kernels,
        renderer=Renderer(
            tokenizer,
            answers_only=learns_answers_only(config.method),
            arguments=config.template_arguments,
        ),
        rows=rows,
        loaded=ModelState(model),
    )


def _copy_attributes(module: torch.nn.Module) -> dict[str, Any]:
    return {name: _copy_table(value) for name, value in vars(module).items()}


def _copy_table(value: Any) -> Any:
    """A copy of a table of parameters, modules or hooks; all else as it is."""
    return copy(value) if isinstance(value, dict) else value
