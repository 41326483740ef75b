"""A training loop by the trainer's rules, small enough to try many learning rates on a CPU.

AdamW without weight decay, 3 % warm-up, a linear schedule down to zero, gradients clipped at a norm of 1, the loss on
the answers' tokens; float32, one seed for the order of the rows and the adapter's first weights.
"""

import copy
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase, set_seed

from tunesmith_data.models.rendering import Renderer, TokenizedRow
from tunesmith_data.models.tokenizer import load_tokenizer, set_padding

SEED = 42
WARMUP = 0.03
VALIDATION_ROWS = 48
ROWS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Trial:
    """One training.

    Attributes:
        rank: rank of a LoRA adapter on all linear layers; None: all weights are trained.
        alpha: the adapter's alpha; its scale is alpha / rank.
        steps: optimizer steps.
        batch: rows of a step.
        rate: the peak learning rate.
    """

    model: str
    task: str
    rank: int | None
    alpha: int | None
    steps: int
    batch: int
    rate: float


class Task:
    """Tokenized rows of a task: training rows in a fixed order, and validation rows.

    Args:
        tokenizer: the model's.
        rows: chat rows; the first ``VALIDATION_ROWS`` are held out.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict[str, Any]]) -> None:
        render = Renderer(tokenizer, answers_only=True)
        tokenized = [render.tokens(row) for row in rows]
        self.held_out, self.rows = tokenized[:VALIDATION_ROWS], tokenized[VALIDATION_ROWS:]

    def batches(self, steps: int, size: int) -> Iterator[list[TokenizedRow]]:
        """Rows of each step: all rows in a new order in each epoch."""
        chance = random.Random(SEED)
        waiting: list[TokenizedRow] = []
        for _ in range(steps):
            while len(waiting) < size:
                waiting += chance.sample(self.rows, len(self.rows))
            yield waiting[:size]
            waiting = waiting[size:]


class Base:
    """A base model in memory, as it was before any training.

    Args:
        folder: its files.
    """

    def __init__(self, folder: Path) -> None:
        self.tokenizer = load_tokenizer(folder)
        set_padding(self.tokenizer)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    @property
    def parameters(self) -> int:
        """Number of its parameters."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    @property
    def width(self) -> int:
        """Size of its hidden states."""
        return int(self._model.config.hidden_size)

    def fresh(self, trial: Trial) -> Any:
        """A copy of it to train, with a new adapter if the trial has one."""
        model = copy.deepcopy(self._model)
        set_seed(SEED)
        if trial.rank is None:
            return model
        adapter = LoraConfig(
            task_type="CAUSAL_LM", r=trial.rank, lora_alpha=trial.alpha, target_modules="all-linear"
        )
        return get_peft_model(model, adapter)


def run_trial(base: Base, task: Task, trial: Trial) -> dict[str, Any]:
    """Train, and measure the validation loss in nats per token of the answers; null if it is no number."""
    model = base.fresh(trial)
    start = time.monotonic()
    train(model, task, trial)
    loss = evaluate(model, task)
    return asdict(trial) | {
        "parameters": base.parameters,
        "width": base.width,
        "loss": round(loss, 4) if math.isfinite(loss) else None,
        "seconds": round(time.monotonic() - start, 1),
    }


def train(model: Any, task: Task, trial: Trial) -> None:
    """Train in place, until the loss is no number."""
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=trial.rate, weight_decay=0.0)
    warmup = math.ceil(WARMUP * trial.steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (trial.steps - step) / max(1, trial.steps - warmup))
    )
    for rows in task.batches(trial.steps, trial.batch):
        loss = 0.0
        for part, share in _parts(rows):
            part_loss = answer_loss(model, part) * share
            part_loss.backward()
            loss += part_loss.item()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if not math.isfinite(loss):
            return


def _parts(rows: Sequence[TokenizedRow]) -> list[tuple[Sequence[TokenizedRow], float]]:
    """Rows that go through the model together, with their share of the answers' tokens."""
    total = count_answers(rows)
    parts = [rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE)]
    return [(part, count_answers(part) / total) for part in parts]


def count_answers(rows: Sequence[TokenizedRow]) -> int:
    """Number of tokens that the loss is a mean of."""
    return sum(sum(row.answer[1:]) for row in rows)


@torch.no_grad()
def evaluate(model: Any, task: Task) -> float:
    """Mean loss over the validation rows' answers, nats per token."""
    model.eval()
    return sum(answer_loss(model, part).item() * share for part, share in _parts(task.held_out))


def answer_loss(model: Any, rows: Sequence[TokenizedRow]) -> torch.Tensor:
    """Mean negative log-probability of the answers' tokens.

    The rows follow each other in one sequence, where each sees itself alone: nothing is padded. Logits are computed
    for the tokens before an answer's alone.
    """
    ids = torch.tensor([token for row in rows for token in row.ids])
    row_of = torch.tensor([number for number, row in enumerate(rows) for _ in row.ids])
    position = torch.tensor([index for row in rows for index in range(len(row.ids))])
    answer = torch.tensor([index > 0 and flag for row in rows for index, flag in enumerate(row.answer)])
    sees = (row_of[:, None] == row_of[None, :]) & (position[:, None] >= position[None, :])
    mask = torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)
    causal = model.get_base_model() if isinstance(model, PeftModel) else model
    hidden = causal.model(
        input_ids=ids[None], position_ids=position[None], attention_mask=mask[None, None], use_cache=False
    ).last_hidden_state[0]
    logits = causal.lm_head(hidden[:-1][answer[1:]])
    return torch.nn.functional.cross_entropy(logits, ids[answer])
