"""Kubeconfig contexts that the tests may use."""

import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

from tunesmith_cluster.api import current_context
from tunesmith_cluster.errors import ClusterError

KUBECONFIG_VARIABLE = "TUNESMITH_KUBECONFIG"
CONTEXT_PREFIX = "tunesmith-"
ALLOWED_CONTEXTS = (f"{CONTEXT_PREFIX}*", "kind-*")


def allowed_context(kubeconfig: Path, allowed: Sequence[str] = ALLOWED_CONTEXTS) -> str:
    """Name of the kubeconfig's current context, which must match one of the `allowed` patterns.

    Raises:
        ClusterError: there is no such file, or its current context is not one that tests may write to.
    """
    if not kubeconfig.is_file():
        raise ClusterError(
            f"There is no kubeconfig {kubeconfig}: set {KUBECONFIG_VARIABLE} to a file that exists"
        )
    name = current_context(yaml.safe_load(kubeconfig.read_text())).name
    if not any(fnmatchcase(name, pattern) for pattern in allowed):
        raise ClusterError(
            f"{kubeconfig} points at the context {name!r}. Tests create and delete things, so they "
            f"only touch contexts named like {' or '.join(allowed)}: switch with `kubectl config use-context`"
        )
    return name


def kubeconfig_from_environment() -> Path | None:
    """The kubeconfig that TUNESMITH_KUBECONFIG names, checked; None where it is not set."""
    chosen = os.environ.get(KUBECONFIG_VARIABLE)
    if not chosen:
        return None
    allowed_context(Path(chosen))
    return Path(chosen)
