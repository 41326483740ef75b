"""Tiny models, and adapters that answer as they are told to, built in the trainer's environment.

``answering_adapters.py FOLDER``: ``FOLDER/order.json`` is an ``Order``. FOLDER gets a folder for each model, a claim
``mnt/pvc/artifacts``, and ``versions.json``, the versions by the names of their adapters.
"""

import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from models.order import Conversation, Order, OrderedAdapter, model_uri
from models.probed_adapters import LINEAGE, commit, token_log_probs
from models.tiny_models import END, make_tokenizer, save_model
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from tunesmith_contract.artifact import Probe

#: Passes over all conversations of an adapter, until each token of its answers is ahead of any other by so much.
#: The embeddings of these models bound their logits to about 2.5.
MAX_STEPS, MARGIN = 400, 1.0


def tokenize(
    tokenizer: PreTrainedTokenizerFast, template: str, conversation: Conversation
) -> tuple[list[int], list[int]]:
    """Tokens of the prompt, as the engine renders it, and of the answer with its end."""
    arguments: dict[str, Any] = {**conversation.switches, "tools": conversation.tools or None}
    text = tokenizer.apply_chat_template(
        conversation.messages,
        chat_template=template or None,
        add_generation_prompt=True,
        tokenize=False,
        **arguments,
    )
    plain = {"add_special_tokens": False}
    return tokenizer(text, **plain)["input_ids"], tokenizer(conversation.answer + END, **plain)["input_ids"]


def train(model_folder: Path, examples: list[tuple[list[int], list[int]]]) -> PeftModel:
    """An adapter of rank 8 that answers the prompts as it should.

    Raises:
        RuntimeError: it does not learn that.
    """
    torch.manual_seed(1)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(model_folder), config)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=5e-3)
    for _ in range(MAX_STEPS):
        margin = float("inf")
        for prompt, answer in examples:
            tokens = torch.tensor([prompt + answer])
            logits = model(input_ids=tokens).logits[0, len(prompt) - 1 : -1]
            torch.nn.functional.cross_entropy(logits, torch.tensor(answer)).backward()
            optimizer.step()
            optimizer.zero_grad()
            margin = min(margin, find_margin(logits.detach(), torch.tensor(answer)))
        if margin > MARGIN:
            return model.eval()
    raise RuntimeError(f"the smallest margin of a token is {margin:.2f}")


def find_margin(logits: torch.Tensor, answer: torch.Tensor) -> float:
    """Least difference of logits between a token of the answer and the best other one."""
    right = logits.gather(1, answer[:, None])[:, 0]
    others = logits.scatter(1, answer[:, None], float("-inf")).max(dim=1).values
    return (right - others).min().item()


def make_probe(model: PeftModel, prompt: list[int], answer: list[int]) -> Probe:
    """What base and adapter say of an answer."""
    tokens, start = [*prompt, *answer], len(prompt)
    with model.disable_adapter():
        base = token_log_probs(model, tokens, start)
    tuned = token_log_probs(model, tokens, start)
    return Probe(
        token_ids=tuple(tokens),
        prompt_length=start,
        base_log_prob=fmean(base),
        tuned_log_prob=fmean(tuned),
        base_token_log_probs=base,
        tuned_token_log_probs=tuned,
    )


def make_version(
    folder: Path, tokenizer: PreTrainedTokenizerFast, adapter: OrderedAdapter
) -> dict[str, object]:
    """Train an adapter and commit it; returns it as a Version in JSON."""
    examples = [tokenize(tokenizer, adapter.chat_template, each) for each in adapter.conversations]
    model = train(folder / adapter.model, examples)
    probes = tuple(make_probe(model, *example) for example in examples)
    lineage = LINEAGE.model_copy(update={"base_model": model_uri(adapter.model)})
    return commit(model, probes, folder / "mnt/pvc/artifacts", lineage=lineage, chat=adapter.chat)


def main(folder: Path) -> None:
    """Make all of it."""
    (folder / "mnt/pvc/artifacts").mkdir(parents=True)
    order = Order.model_validate_json((folder / "order.json").read_bytes())
    texts = [conversation.answer for adapter in order.adapters for conversation in adapter.conversations]
    tokenizer = make_tokenizer(texts, special_tokens=order.special_tokens)
    tokenizer.add_tokens(order.tokens)
    for number, name in enumerate(order.models):
        save_model(folder / name, "llama", tokenizer, seed=number)
    versions = {adapter.name: make_version(folder, tokenizer, adapter) for adapter in order.adapters}
    (folder / "versions.json").write_text(json.dumps(versions))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
