"""Model of a group of sides in memory: the base model with all adapters, or a whole model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from peft import PeftModel
from transformers import AutoModelForCausalLM

from tunesmith_contract.evaluation import Decoding
from tunesmith_contract.exit_codes import FailureCategory
from tunesmith_contract.shared_rules.answer_memory import AnswerMemory
from tunesmith_data.failures import StageError, UserError
from tunesmith_evaluation.metrics.answers import Likelihood

from .batch_limit import BatchLimit, measure_limit
from .decoding import AnswerEnd, find_answer_end
from .generation import EncodedPrompt, Generated, Generator
from .likelihood import EncodedAnswer, measure_likelihoods
from .memory import release_memory
from .placement import Placement
from .sides import ModelGroup, padded_tokenizer


class GenerationTask(NamedTuple):
    """Prompts that one side answers with one decoding."""

    side: str
    prompts: list[EncodedPrompt]
    decoding: Decoding

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each prompt."""
        return [len(prompt.ids) for prompt in self.prompts]

    def select(self, indices: Sequence[int]) -> "GenerationTask":
        """The same with some of the prompts."""
        return self._replace(prompts=[self.prompts[index] for index in indices])


class LikelihoodTask(NamedTuple):
    """Expected answers whose likelihood under one side is measured."""

    side: str
    answers: list[EncodedAnswer]

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each prompt with its answer."""
        return [len(answer.ids) for answer in self.answers]

    def select(self, indices: Sequence[int]) -> "LikelihoodTask":
        """The same with some of the answers."""
        return self._replace(answers=[self.answers[index] for index in indices])


Task = GenerationTask | LikelihoodTask
#: Results of a batch by the index of the prompt or answer in its task.
Results = Mapping[int, Generated] | Mapping[int, Likelihood]


class SideModels:
    """Sides of one group that answer with a model in this process, which is loaded with the first task.

    Args:
        group: folders of the model and its adapters.
        memory: memory of the model.
        placement: devices of the model.
    """

    def __init__(self, group: ModelGroup, memory: AnswerMemory, placement: Placement) -> None:
        self._group = group
        self._memory = memory
        self._placement = placement

    def run(self, task: Task) -> Iterator[Results]:
        """Results of a task, one dictionary per batch.

        Raises:
            StageError: memory does not suffice.
        """
        loaded = self._loaded
        with self._activate_adapter(task.side):
            if isinstance(task, LikelihoodTask):
                pad = loaded.tokenizer.pad_token_id
                yield from measure_likelihoods(loaded.model, task.answers, pad, loaded.limit)
            else:
                generator = Generator(loaded.model, loaded.tokenizer, loaded.limit, loaded.end)
                yield from generator.answer(task.prompts, task.decoding)

    def unload(self) -> None:
        """Free the model's memory."""
        self.__dict__.pop("_loaded", None)
        release_memory()

    @cached_property
    def _loaded(self) -> "_LoadedModel":
        model = load_model(self._group.folder, self._placement, self._group.name)
        tokenizer = padded_tokenizer(self._group)
        end = find_answer_end(model.generation_config, tokenizer)
        model = add_adapters(model, self._group.adapters).eval()
        return _LoadedModel(model, tokenizer, end, measure_limit(model, self._memory, self._placement))

    def _activate_adapter(self, side: str) -> AbstractContextManager[None]:
        model = self._loaded.model
        if side in self._group.adapters:
            model.set_adapter(side)
        elif isinstance(model, PeftModel):
            disabled: AbstractContextManager[None] = model.disable_adapter()
            return disabled
        return nullcontext()


class _LoadedModel(NamedTuple):
    """Model with all adapters of its group, its tokenizer, and what was measured of them."""

    model: Any
    tokenizer: Any
    end: AnswerEnd
    limit: BatchLimit


def load_model(folder: Path, placement: Placement, name: str) -> Any:
    """Model on its devices.

    Args:
        folder: the model's folder.
        placement: its devices.
        name: name of the model in messages.

    Raises:
        UserError: its weights are not those that its configuration asks for; the library would take random ones.
        StageError: it does not fit on them.
    """
    causal: Any = AutoModelForCausalLM
    model, loaded = causal.from_pretrained(
        folder,
        dtype=placement.dtype,
        local_files_only=True,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **placement.loading_arguments(),
    )
    wrong = sorted([*loaded["missing_keys"], *(str(mismatch[0]) for mismatch in loaded["mismatched_keys"])])
    if wrong:
        message = (
            f"the weights of {name} in {folder} do not fit its config.json: {wrong[0]} is missing or has "
            f"another size ({len(wrong):,} in all); copy the model again"
        )
        raise UserError("ModelUnreadable", message)
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
