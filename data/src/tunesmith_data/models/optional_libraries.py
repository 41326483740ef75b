"""Optional libraries (torch, TRL), and the checks that are left out without them."""

from importlib.util import find_spec

_MISSING = {
    "torch": "torch is not installed: the recommended rank goes by the rows alone, and without weight files training "
    "time is not estimated; the cluster measures the model",
    "trl": "TRL is not installed: rows were rendered by the model's own chat template; the cluster checks whether "
    "training uses another one, and finds the answers in it",
}


def is_installed(library: str) -> bool:
    """True if a library is installed."""
    return find_spec(library) is not None


def describe_missing() -> list[str]:
    """Sentence for each missing library, about the checks that are left out without it."""
    return [sentence for library, sentence in _MISSING.items() if not is_installed(library)]
