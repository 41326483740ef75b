"""Every logged step of a run, as JSON lines beside its artefact."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

HISTORY_FILE = "metrics.jsonl"

#: How long things took, and what is counted from the last start on, differs from run to run: the same training is to
#: give the same artefact.
_OF_THIS_PROCESS = ("runtime", "_per_second", "total_flos", "num_tokens", "train_loss")


def write_history(folder: Path, log_history: Iterable[Mapping[str, Any]]) -> None:
    """Write what transformers logged, without what interruptions change: a line per entry, with its ``step``."""
    lines = [json.dumps(_comparable(entry), sort_keys=True) for entry in log_history]
    (folder / HISTORY_FILE).write_text("".join(f"{line}\n" for line in lines))


def _comparable(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in entry.items() if not any(part in name for part in _OF_THIS_PROCESS)
    }


def last_logged(log_history: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """The last logged number of a name; None if there is none."""
    return next((entry[name] for entry in reversed(log_history) if name in entry), None)
