"""GGUF, by llama.cpp's own converter, with the Modelfile that Ollama reads."""

import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tunesmith_data.models.gguf_converter import MODEL_FILE, convert_to_gguf

MODELFILE = "Modelfile"

#: 8-bit blocks: half of bfloat16's size, and answers that are hardly ever another.
TYPE = "q8_0"


def save_gguf(model: Path, folder: Path) -> None:
    """Convert a model's folder to ``model.gguf``.

    Raises:
        UserError: llama.cpp does not know the architecture or the tokenizer.
        InternalError: its converter is broken or missing.
    """
    folder.mkdir(parents=True)
    convert_to_gguf(model, folder / MODEL_FILE, "--outtype", TYPE)


def write_modelfile(folder: Path, tokenizer: PreTrainedTokenizerBase, system: str | None = None) -> None:
    """``ollama create NAME -f Modelfile``: the file, and where an answer stops.

    Ollama takes the chat template from the GGUF; the end tokens are said again, since it stops at them only where it
    knows the template.
    """
    lines = [f"FROM ./{MODEL_FILE}"]
    if system:
        lines.append(f"SYSTEM {json.dumps(system, ensure_ascii=False)}")
    if tokenizer.eos_token:
        lines.append(f"PARAMETER stop {json.dumps(str(tokenizer.eos_token), ensure_ascii=False)}")
    lines.append("PARAMETER temperature 0")
    (folder / MODELFILE).write_text("\n".join(lines) + "\n")
