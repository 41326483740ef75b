"""Paths of builds and cluster state, outside the work tree."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """Builds that survive a cluster, keyed by content."""
    chosen = os.environ.get("TUNESMITH_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tunesmith"


def default_state(name: str) -> Path:
    """Everything of one running cluster: keys, data, logs, process records. Removed by `down`."""
    chosen = os.environ.get("TUNESMITH_STATE")
    if chosen:
        return Path(chosen) / name
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "tunesmith" / name
