"""GGUF export with llama.cpp's converter, and the Modelfile for Ollama."""

import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tunesmith_data.models.gguf_converter import MODEL_FILE, convert_to_gguf

MODELFILE = "Modelfile"

#: 8-bit blocks: half of bfloat16's size, with nearly the same answers.
QUANTIZATION = "q8_0"


def save_gguf(model: Path, folder: Path) -> None:
    """Convert a model's folder to ``model.gguf``.

    Raises:
        UserError: llama.cpp does not support the architecture or the tokenizer.
        InternalError: its converter is broken or missing.
    """
    folder.mkdir(parents=True)
    convert_to_gguf(model, folder / MODEL_FILE, "--outtype", QUANTIZATION)


def write_modelfile(folder: Path, tokenizer: PreTrainedTokenizerBase, system: str | None = None) -> None:
    """Write a Modelfile for ``ollama create NAME -f Modelfile``, with model file and stop tokens.

    Ollama reads the chat template from the GGUF, but stops at its end tokens only for templates that it knows.
    """
    lines = [f"FROM ./{MODEL_FILE}"]
    if system:
        lines.append(f"SYSTEM {json.dumps(system, ensure_ascii=False)}")
    if tokenizer.eos_token:
        lines.append(f"PARAMETER stop {json.dumps(str(tokenizer.eos_token), ensure_ascii=False)}")
    lines.append("PARAMETER temperature 0")
    (folder / MODELFILE).write_text("\n".join(lines) + "\n")
