"""Comparison script of the trainer benchmark with Unsloth (needs a GPU); prints one JSON line like ``bare.py``."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

# Unsloth patches the libraries below, and has to be imported first.
import unsloth  # noqa: F401  # isort: skip
import torch
from bare import load_rows
from trl import SFTConfig, SFTTrainer
from unsloth import FastLanguageModel


def main() -> None:
    """Train; print seconds, loss, steps and peak memory in bytes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--four-bit", action="store_true")
    parser.add_argument("--settings", type=json.loads, default={})
    options = parser.parse_args()
    model, tokenizer = FastLanguageModel.from_pretrained(
        str(options.model),
        max_seq_length=options.settings["max_length"],
        load_in_4bit=options.four_bit,
        dtype=torch.bfloat16,
    )
    model = FastLanguageModel.get_peft_model(
        model, r=options.rank, lora_alpha=32, use_gradient_checkpointing=False
    )
    arguments: dict[str, Any] = options.settings | {"output_dir": str(options.output), "bf16": True}
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=load_rows(options.rows),
        args=SFTConfig(disable_tqdm=True, **arguments),
    )
    start = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - start
    history = trainer.state.log_history
    result = {
        "seconds": seconds,
        "loss": next(entry["loss"] for entry in reversed(history) if "loss" in entry),
        "steps": trainer.state.global_step,
        "peakMemoryBytes": torch.cuda.max_memory_allocated(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
