"""Tiny random language models: real architectures with 0.6 M parameters, trained in seconds."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

Architecture = Literal["llama", "mistral", "qwen2", "qwen3"]
ARCHITECTURES: tuple[Architecture, ...] = get_args(Architecture)
VOCABULARY = 512

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# ChatML. The generation marks enclose what assistant_only_loss learns from: the answer and its end token.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}"
    "{{ '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_CONFIGS: dict[Architecture, Callable[..., PreTrainedConfig]] = {
    "llama": LlamaConfig,
    "mistral": MistralConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
}


def make_tokenizer(
    texts: Iterable[str],
    chat_template: str | None = CHAT_TEMPLATE,
    special_tokens: Sequence[str] = (),
) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most 512 tokens learnt from `texts`; it encodes any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END, *special_tokens],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START, *special_tokens],
        chat_template=chat_template,
        model_max_length=VOCABULARY,
    )


def make_config(architecture: Architecture, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    """The configuration of a tiny model of `architecture` for `tokenizer`."""
    return _CONFIGS[architecture](
        vocab_size=max(VOCABULARY, len(tokenizer)),
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=VOCABULARY,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def make_model(directory: Path, architecture: Architecture, texts: Iterable[str], seed: int = 0) -> Path:
    """Save a random model of `architecture` with its tokenizer into `directory`, as safetensors; return it.

    The same architecture, texts and seed give the same weights. The random generator is left as it was.
    """
    return save_model(directory, architecture, make_tokenizer(texts), seed)


def save_model(
    directory: Path, architecture: Architecture, tokenizer: PreTrainedTokenizerFast, seed: int = 0
) -> Path:
    """The same with a tokenizer that is there already."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(make_config(architecture, tokenizer), dtype=torch.float32)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    for file in directory.iterdir():
        file.chmod(0o644)  # safetensors writes 0600, which a pod of another user could not read
    return directory
