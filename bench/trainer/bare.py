"""Baseline of the trainer benchmark: a plain training script with TRL and PEFT, without Tunesmith.

``--settings`` is a JSON object of SFTConfig's arguments; without it TRL's defaults apply. Prints one JSON line.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from datasets import Dataset, load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer


def load_rows(file: Path) -> Dataset:
    """Conversations of a prepared file, without the keys of messages that are null."""
    rows = load_dataset("parquet", data_files=str(file), split="train").select_columns("messages")
    return rows.map(
        lambda row: {
            "messages": [{key: turn[key] for key in ("role", "content")} for turn in row["messages"]]
        }
    )


def main() -> None:
    """Train and save; print seconds, tokens, loss and steps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--settings", type=json.loads, default={})
    options = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if on_gpu else torch.float32
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype),
        processing_class=AutoTokenizer.from_pretrained(options.model),
        train_dataset=load_rows(options.rows),
        args=SFTConfig(
            output_dir=str(options.output),
            bf16=on_gpu,
            use_cpu=not on_gpu,
            disable_tqdm=True,
            **options.settings,
        ),
        peft_config=LoraConfig(
            r=options.rank, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    start = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - start
    trainer.save_model(str(options.output / "final"))
    tokens = next(
        entry["num_tokens"] for entry in reversed(trainer.state.log_history) if "num_tokens" in entry
    )
    loss = next(entry["loss"] for entry in reversed(trainer.state.log_history) if "loss" in entry)
    result = {"seconds": seconds, "tokens": tokens, "loss": loss, "steps": trainer.state.global_step}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
