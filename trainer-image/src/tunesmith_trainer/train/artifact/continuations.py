"""Answers to the prompts of rows that have none, or one that the model would never give: probes hold on to them.

Methods that learn from prompts change most what the model itself says. So the base model's own words are asked for
before anything is learned, when full fine-tuning still has a base model.
"""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from tunesmith_data.models.rendering import Renderer
from tunesmith_data.rows.schema.formats import Row

PROMPTS = 8
TOKENS = 32


def with_answers(model: Any, renderer: Renderer, rows: Iterable[Row]) -> list[Row]:
    """Rows that all have an answer: of prompts the first few, each with what the model says and the row's ``answer``.

    Args:
        model: before training.
        renderer: of its tokenizer.
        rows: canonical rows of one format.
    """
    kept = list(rows)
    if not kept or not _is_prompt(kept[0]):
        return kept
    if torch.cuda.is_available() and model.device.type == "cpu" and not is_deepspeed_zero3_enabled():
        model.to(torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))))  # where the trainer wants it
    return [answered for row in islice(kept, PROMPTS) for answered in _answered(model, renderer, row)]


def _is_prompt(row: Row) -> bool:
    return "prompt" in row and not {"completion", "chosen"} & row.keys()


def _answered(model: Any, renderer: Renderer, row: Row) -> Iterator[Row]:
    texts = [_last_words(row)] if is_deepspeed_zero3_enabled() else [_continue(model, renderer, row)]
    for text in (*texts, row.get("answer")):
        if text:
            plain = isinstance(row["prompt"], str)
            completion = text if plain else [{"role": "assistant", "content": text}]
            yield {"prompt": row["prompt"], "completion": completion}


def _continue(model: Any, renderer: Renderer, row: Row) -> str:
    """What the model is likeliest to say, without chance."""
    tokenizer = renderer.tokenizer
    ids = torch.tensor([renderer.tokens(row).ids], device=model.device)
    config = GenerationConfig(
        max_new_tokens=TOKENS,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    was_training = model.training
    model.eval()
    with torch.no_grad():
        output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
    model.train(was_training)
    text: str = tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
    return text


def _last_words(row: Row) -> str:
    """Of weights that lie in pieces on many devices nothing can be asked: the prompt's own end has to do."""
    prompt = row["prompt"]
    return str(prompt if isinstance(prompt, str) else prompt[-1]["content"])
