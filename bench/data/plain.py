"""What a careful person writes with ``datasets``: the same checks, canonical rows, tokens, exact dedup, split, Parquet.

Prints one JSON object: rows of each kind.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset
from transformers import AutoTokenizer

ROLES = {"system", "user", "assistant", "tool"}
KEYS = {"role", "content", "name", "tool_calls", "tool_call_id"}


def problem_of(messages: Any) -> str:
    """The first check that a conversation fails; empty for a good one."""
    if not isinstance(messages, list) or not messages:
        return "missing_messages_list"
    for message in messages:
        if not isinstance(message, dict):
            return "data_type"
        if "role" not in message or "content" not in message:
            return "message_missing_key"
        if set(message) - KEYS:
            return "message_unrecognized_key"
        if message["role"] not in ROLES:
            return "unrecognized_role"
        if not isinstance(message["content"], str) or (
            message["role"] == "assistant" and not message["content"].strip()
        ):
            return "missing_content"
    if not any(message["role"] == "assistant" for message in messages):
        return "example_missing_assistant_message"
    return ""


def look(batch: dict[str, list[Any]], tokenizer: Any) -> dict[str, list[Any]]:
    """Problem, digest and tokens of each row of a batch."""
    problems = [problem_of(messages) for messages in batch["messages"]]
    texts = [
        "" if problem else tokenizer.apply_chat_template(messages, tokenize=False)
        for problem, messages in zip(problems, batch["messages"], strict=True)
    ]
    lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    digests = [
        hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()
        for messages in batch["messages"]
    ]
    return {"problem": problems, "digest": digests, "tokens": lengths}


def prepare(file: Path, model: Path, output: Path, processes: int) -> dict[str, int]:
    """Read, check, count, deduplicate, split and write."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows: Dataset = load_dataset("json", data_files=str(file), split="train", cache_dir=str(output / "cache"))
    read = len(rows)
    rows = rows.map(
        look, batched=True, fn_kwargs={"tokenizer": tokenizer}, num_proc=processes if processes > 1 else None
    )
    good = rows.filter(
        lambda problems: [not problem for problem in problems], input_columns="problem", batched=True
    )
    seen: set[str] = set()
    firsts = []
    for index, digest in enumerate(good["digest"]):
        if digest not in seen:
            seen.add(digest)
            firsts.append(index)
    unique = good.select(firsts)
    split = unique.train_test_split(test_size=0.1, seed=1)
    for name in ("train", "test"):
        split[name].select_columns(["messages"]).to_parquet(output / f"{name}.parquet")
    return {
        "rows": read,
        "dropped": read - len(good),
        "duplicates": len(good) - len(unique),
        "train": len(split["train"]),
        "validation": len(split["test"]),
    }


def main() -> None:
    """Run on a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    print(json.dumps(prepare(options.file, options.model, options.output, options.processes)))


if __name__ == "__main__":
    main()
