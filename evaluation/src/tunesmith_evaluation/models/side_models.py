"""Models of the sides in memory: one at a time, the base model with all adapters or a fully fine-tuned one."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.shared_rules.answer_memory import AnswerMemory
from tunesmith_data.failures import StageError

from .batch_limit import BatchLimit, measure_limit
from .generation import Generator, release_memory
from .placement import Placement
from .sides import VerifiedSides, padded_tokenizer


class SideModels:
    """Sides that answer with models loaded in this process, each when it is first asked.

    Args:
        sides: folders of the models and adapters.
        memory: memory of one model.
        placement: devices of the models.
    """

    def __init__(self, sides: VerifiedSides, memory: AnswerMemory, placement: Placement) -> None:
        self._sides = sides
        self._memory = memory
        self._placement = placement
        self._folder: Path | None = None
        self._model: Any = None
        self._limit = BatchLimit()

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return padded_tokenizer(self._sides.base)

    def answer(
        self, side: str, prompts: Sequence[list[int]], max_new_tokens: int
    ) -> Iterator[dict[int, str]]:
        """Generate one side's answers; yields one dictionary per batch, from the prompt's index to its answer.

        Args:
            side: name of the side.
            prompts: token ids.
            max_new_tokens: maximum length of an answer, in tokens.

        Raises:
            StageError: memory does not suffice.
        """
        folder = self._sides.model_folder(side)
        if folder != self._folder:
            self._replace_model(folder)
        with self._activate_adapter(side):
            yield from Generator(self._model, self._tokenizer, self._limit).answer(prompts, max_new_tokens)

    def _activate_adapter(self, side: str) -> AbstractContextManager[None]:
        if side in self._sides.adapters:
            self._model.set_adapter(side)
        elif isinstance(self._model, PeftModel):
            return self._model.disable_adapter()
        return nullcontext()

    def _replace_model(self, folder: Path) -> None:
        """Free the current model before another is loaded."""
        self._folder = self._model = None
        release_memory()
        model = load_model(folder, self._placement)
        if folder == self._sides.base:
            model = add_adapters(model, self._sides.adapters)
        self._model, self._folder = model.eval(), folder
        self._limit = measure_limit(model, self._memory, self._placement)


def load_model(folder: Path, placement: Placement) -> Any:
    """Model on its devices.

    Raises:
        StageError: it does not fit on them.
    """
    causal: Any = AutoModelForCausalLM
    model = causal.from_pretrained(
        folder,
        dtype=placement.dtype,
        local_files_only=True,
        use_safetensors=True,
        **placement.loading_arguments(),
    )
    if placement.gpus and any(parameter.device.type != "cuda" for parameter in model.parameters()):
        message = (
            f"the model does not fit on {len(placement.gpus)} GPUs without moving parts of it out of their memory: "
            "raise compute.gpus or choose GPUs with more memory"
        )
        raise StageError(FailureCategory.OUT_OF_MEMORY, "OutOfMemory", message)
    return model


def add_adapters(model: Any, adapters: Mapping[str, Path]) -> Any:
    """Model with adapters in its own data type, as they are served.

    Args:
        model: the base model.
        adapters: folders by the name of the side.
    """
    for name, folder in adapters.items():
        if isinstance(model, PeftModel):
            model.load_adapter(folder, adapter_name=name, autocast_adapter_dtype=False, torch_device="cpu")
        else:
            model = PeftModel.from_pretrained(
                model, folder, adapter_name=name, autocast_adapter_dtype=False, torch_device="cpu"
            )
    return model
