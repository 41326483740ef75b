"""JSON Lines file of a run's logged metrics, part of its artifact."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

HISTORY_FILE = "metrics.jsonl"

#: Times, and counters that begin at the last restart: left out, since the same training has to give the same artifact.
_PROCESS_METRICS = ("runtime", "_per_second", "total_flos", "num_tokens", "train_loss")


def write_history(folder: Path, log_history: Iterable[Mapping[str, Any]]) -> None:
    """Write the log entries of transformers without process-dependent metrics, one line per entry."""
    lines = [
        json.dumps(
            {
                name: value
                for name, value in entry.items()
                if not any(part in name for part in _PROCESS_METRICS)
            },
            sort_keys=True,
        )
        for entry in log_history
    ]
    (folder / HISTORY_FILE).write_text("".join(f"{line}\n" for line in lines))


def last_logged(log_history: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Last logged value of a metric; None if there is none."""
    return next((entry[name] for entry in reversed(log_history) if name in entry), None)
