"""Learning from a larger model: from its opinion of the student's own answers, or from the answers it gave."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from trl import DistillationConfig, DistillationTrainer

from tunesmith_contract.methods import DistillationMethod
from tunesmith_data.failures import UserError
from tunesmith_data.models.inspection import load_config
from tunesmith_data.models.tokenizer import load_tokenizer
from tunesmith_data.prepare.teacher_answers import as_supervised
from tunesmith_trainer.train.arguments import common_arguments
from tunesmith_trainer.train.context import Training

from .few_metrics import FewMetrics
from .online import VALIDATION_ROWS, build_prompts, require_prompts
from .replay import ReplayedOrder
from .supervised import build_sft_trainer


class _DistillationTrainer(ReplayedOrder, FewMetrics, DistillationTrainer):
    pass


def build_distillation_trainer(training: Training) -> Any:
    """The trainer of the teacher that is named: of its weights, or of the answers that prepare got from it.

    Raises:
        UserError: the teacher has another vocabulary, or rows don't fit.
    """
    method = training.config.method.distillation
    assert method is not None
    if method.teacher.uri is None:
        # Its rows hold the teacher's answers.
        supervised = {"method": as_supervised(training.config.method)}
        return build_sft_trainer(replace(training, config=training.config.model_copy(update=supervised)))
    return _build_on_policy(training, method, method.teacher.uri)


def _build_on_policy(training: Training, method: DistillationMethod, uri: str) -> DistillationTrainer:
    rows = training.rows
    require_prompts(training.config.hyperparameters.batch_size, len(rows.train))
    folder = training.storage.model_folder(uri, weights=True)
    _require_same_vocabulary(training, folder, uri)
    return _DistillationTrainer(
        model=training.model,
        teacher_model=_load_teacher(folder),
        args=DistillationConfig(
            **common_arguments(training),
            temperature=method.temperature,
            max_completion_length=method.max_completion_length,
            disable_dropout=True,
            use_vllm=False,
        ),
        train_dataset=build_prompts(rows.train),
        eval_dataset=build_prompts(rows.validation[:VALIDATION_ROWS]) if rows.validation else None,
        processing_class=training.tokenizer,
        peft_config=training.peft_config,
        callbacks=training.callbacks,
    )


def _load_teacher(folder: Path) -> Any:
    """The teacher, which only gives its opinion: in half precision on a GPU."""
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, local_files_only=True, use_safetensors=True
    )


def _require_same_vocabulary(training: Training, folder: Path, uri: str) -> None:
    """Opinions are compared token by token, so a token's number has to mean the same to both."""
    teacher, student = load_tokenizer(folder), training.tokenizer
    sizes = [_rows(load_config(folder)), _rows(training.model.config)]
    if teacher.get_vocab() == student.get_vocab() and sizes[0] == sizes[1]:
        return
    message = (
        f"the teacher {uri} has another vocabulary than the base model ({sizes[0]:,} and {sizes[1]:,} rows of output): "
        "name a teacher of the same family, or let it answer by teacher.endpoint"
    )
    raise UserError("TeacherVocabulary", message)


def _rows(config: Any) -> int:
    size: int = config.get_text_config().vocab_size
    return size
