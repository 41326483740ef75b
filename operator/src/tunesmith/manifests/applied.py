"""Annotation with the digest of what an object was applied from, so that an unchanged object costs no write."""

from collections.abc import Mapping
from typing import Any

from tunesmith_contract.base import canonical_json, sha256_digest

from .names import GROUP
from .objects import Body, KubernetesObject

APPLIED_ANNOTATION = f"{GROUP}/applied"


def with_applied(manifest: Body, basis: Any) -> KubernetesObject:
    """The manifest with the annotation.

    Args:
        basis: a JSON value. For an object whose pods must outlive an upgrade of the operator, what a person wrote; else
            the manifest itself.
    """
    annotations = manifest["metadata"].get("annotations", {}) | {APPLIED_ANNOTATION: _digest(basis)}
    return {**manifest, "metadata": {**manifest["metadata"], "annotations": annotations}}


def is_applied(observed: Body | None, basis: Any) -> bool:
    """True for an observed object that was applied from the same basis."""
    if observed is None:
        return False
    annotations: Mapping[str, str] = observed["metadata"].get("annotations", {})
    return annotations.get(APPLIED_ANNOTATION) == _digest(basis)


def _digest(basis: Any) -> str:
    return sha256_digest(canonical_json(basis))
