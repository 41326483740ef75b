"""Inputs of a TRL trainer: model, rows, configuration, callbacks."""

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
class TrainingContext:
    """Everything a method's trainer is built from.

    Attributes:
        config: the run, with every Auto resolved.
        model: the loaded model, with the adapter of an earlier artifact if training continues from one.
        peft_config: adapter that the trainer adds; None for full fine-tuning, or if the model has one already.
        kernels: attention implementation and fused kernels.
        renderer: renders rows to tokens with the model's tokenizer and chat template.
        rows: prepared rows in their canonical form.
        output_dir: the trainer's output folder.
        logs: folder of TensorBoard event files.
        callbacks: callbacks of the trainer.
        storage: storage of further models (teacher, reward model).
        reports_steps: transformers reports each step to the operator.
    """

    config: TrainConfig
    model: Any
    peft_config: PeftConfig | None
    kernels: Kernels
    renderer: Renderer
    rows: Split
    output_dir: Path
    logs: Path
    callbacks: list[TrainerCallback]
    storage: Storage
    reports_steps: bool = True

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        return self.renderer.tokenizer
