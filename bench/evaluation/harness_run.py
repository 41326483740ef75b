"""One run of lm-evaluation-harness as its users write it: one model, one task; prints the answers as JSON."""

import argparse
import json
from pathlib import Path

import torch
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager


def main() -> None:
    """Evaluate a model, or an adapter on it, on a task that a folder defines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--task", required=True)
    parser.add_argument("--include", type=Path, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--chat", action="store_true")
    options = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    arguments = {"pretrained": str(options.model), "dtype": "bfloat16" if on_gpu else "float32"}
    if options.adapter:
        arguments["peft"] = str(options.adapter)
    found = simple_evaluate(
        model="hf",
        model_args=arguments,
        tasks=[options.task],
        task_manager=TaskManager(include_path=str(options.include), include_defaults=False),
        batch_size=options.batch,
        device="cuda" if on_gpu else "cpu",
        apply_chat_template=options.chat,
        fewshot_as_multiturn=options.chat,
        bootstrap_iters=0,
    )
    samples = sorted(found["samples"][options.task], key=lambda sample: sample["doc_id"])
    print(json.dumps([sample.get("acc", sample["resps"][0][0]) for sample in samples]))


if __name__ == "__main__":
    main()
