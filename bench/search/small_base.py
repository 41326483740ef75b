"""Small Llama that is trained on the spot, as base model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from models.tiny_models import make_tokenizer
from training import Base, Task, Trial, train
from transformers import AutoModelForCausalLM, LlamaConfig

WIDTH, LAYERS = 128, 4
PRETRAINING = {"steps": 300, "batch": 16, "rate": 2e-3}


def make_base(folder: Path, rows: Sequence[dict[str, Any]]) -> Base:
    """A Llama of 0.9 million parameters, trained on chat rows from random weights."""
    tokenizer = make_tokenizer(json.dumps(row) for row in rows)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=WIDTH // 32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    task = Task(tokenizer, rows)
    train(model, task, Trial("llama-128", "opposite", None, None, **PRETRAINING))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Base(folder)
