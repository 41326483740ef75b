"""What a method's trainer is built from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftConfig
from transformers import PreTrainedTokenizerBase, TrainerCallback

from tunesmith_contract.run_config import TrainConfig
from tunesmith_data.models.rendering import Renderer
from tunesmith_data.pod.storage import Storage
from tunesmith_data.rows.table.split import Split

from .kernels import Kernels


@dataclass(frozen=True, slots=True)
class Training:
    """A run that is about to start.

    Attributes:
        config: what was asked for, every Auto resolved.
        model: the loaded model; an earlier artefact's adapter stands on it already.
        peft_config: the adapter that the trainer is to add; None for full fine-tuning, or where one stands already.
        kernels: how the model is run.
        renderer: turns rows into tokens by the model's tokenizer and template.
        rows: the prepared rows, in their canonical form.
        checkpoints: the trainer's output folder.
        logs: the folder of TensorBoard's event files.
        callbacks: what is to happen between steps.
        storage: finds what further URIs name (a teacher, a reward model).
    """

    config: TrainConfig
    model: Any
    peft_config: PeftConfig | None
    kernels: Kernels
    renderer: Renderer
    rows: Split
    checkpoints: Path
    logs: Path
    callbacks: list[TrainerCallback]
    storage: Storage

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        return self.renderer.tokenizer
