"""Libraries that only the trainer image has, and what is not known without them."""

from importlib.util import find_spec

_MISSING = {
    "torch": "torch is not installed: the sizes of the model's layers, and training time where its weights are not "
    "at hand, were left out; a job's prepare measures them",
    "trl": "TRL is not installed: rows were rendered by the model's own chat template; whether training needs "
    "another one, and can tell answers from questions, a job's prepare checks",
}


def is_installed(library: str) -> bool:
    """Whether a library can be imported here."""
    return find_spec(library) is not None


def describe_missing() -> list[str]:
    """A sentence for each library that is missing: what was left out for want of it."""
    return [sentence for library, sentence in _MISSING.items() if not is_installed(library)]
