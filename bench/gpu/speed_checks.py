"""Checks beside others: TRL and Unsloth on the same rows, the memory estimate beside single steps."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from check_runner import CheckFailed, Place, Skipped
from measure import defaults, unsloth
from training_checks import open_bench
from workload import ON_GPU

_MEMORY = Path(__file__).parents[1] / "memory.py"


def compare_defaults(place: Place) -> dict[str, Any]:
    """Tokens per second of our defaults and of TRL's."""
    found = defaults(open_bench(place, 1100), epochs=2 if ON_GPU else 1)
    return {
        "ourTokensPerSecond": found["ours"]["tokensPerSecond"],
        "trlTokensPerSecond": found["trl"]["tokensPerSecond"],
        "ourLoss": found["ours"]["loss"],
        "trlLoss": found["trl"]["loss"],
    }


def compare_unsloth(place: Place) -> dict[str, Any]:
    """Tokens per second of Unsloth, LoRA and QLoRA."""
    if find_spec("unsloth") is None:
        raise Skipped("unsloth is not installed")
    rows = unsloth(open_bench(place, 1200), steps=40)
    if rows is None:
        raise Skipped("no GPU")
    return {row["adapter"]: row["tokens"] / row["seconds"] for row in rows}


def measure_memory(place: Place) -> dict[str, Any]:
    """Peaks of single steps beside the estimate; simulated on a tiny model without a GPU."""
    output = place.folder / "memory.json"
    models = ["--models", "Llama 3.2 1B", "Llama 3.2 3B"] if ON_GPU else ["--small"]
    command = [sys.executable, str(_MEMORY), "measure", "--output", str(output), *models]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    if done.returncode:
        raise CheckFailed(done.stderr[-1000:])
    found = json.loads(output.read_text())
    return {"worstError": found["worst_error"], "steps": len(found["rows"]), "rows": found["rows"]}
