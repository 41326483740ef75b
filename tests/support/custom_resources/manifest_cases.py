"""The good and bad manifests of ``tests/control_plane/manifests``, for the models and for the API server."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

MANIFESTS = Path(__file__).parents[2] / "control_plane" / "manifests"
GOOD = sorted(file.stem for file in (MANIFESTS / "good").glob("*.yaml"))

_EXAMPLES = Path(__file__).parents[3] / "examples"
JOB_EXAMPLES = sorted(
    file for folder in ("methods", "data", "gpus", "search") for file in (_EXAMPLES / folder).glob("*.yaml")
)
EVALUATION_EXAMPLES = sorted((_EXAMPLES / "evaluation").glob("*.yaml"))
SERVING_EXAMPLES = _EXAMPLES / "serving"
#: Those that a server takes one by one; kustomization.yaml is for kubectl alone, and the namespace is cluster-wide.
EXAMPLES = [
    *JOB_EXAMPLES,
    *EVALUATION_EXAMPLES,
    *(_EXAMPLES / "quickstart" / f"{name}.yaml" for name in ("claims", "finetunejob", "adapterdeployment")),
    SERVING_EXAMPLES / "autoscaled.yaml",
    SERVING_EXAMPLES / "client-keys.yaml",
    SERVING_EXAMPLES / "client-keys-secret.yaml",
    SERVING_EXAMPLES / "hpa.yaml",
]


class _KubectlLoader(yaml.CSafeLoader):
    """Loader that takes 2e-4 for a number, as kubectl does; PyYAML alone takes it for a string."""


_KubectlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


class BadCase(NamedTuple):
    """A manifest that is refused, and the message that a person reads."""

    title: str
    body: dict[str, Any]
    message: str


def read_documents(text: str) -> list[Any]:
    """The documents of a YAML text, as kubectl reads them."""
    return list(yaml.load_all(text, Loader=_KubectlLoader))


def load_good(name: str) -> dict[str, Any]:
    """One good manifest."""
    (body,) = read_documents((MANIFESTS / "good" / f"{name}.yaml").read_text())
    return dict(body)


def merge(value: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(value) if isinstance(value, dict) else {}
    for key, member in patch.items():
        merged[key] = merge(merged.get(key), member)
    return {key: member for key, member in merged.items() if member is not None}


def bad_cases() -> list[BadCase]:
    """Every case of the tables in ``bad``, patched into its good manifest."""
    return [
        BadCase(
            f"{file.stem}: {case['name']}", merge(load_good(table["base"]), case["patch"]), case["message"]
        )
        for file in sorted((MANIFESTS / "bad").glob("*.yaml"))
        for table in read_documents(file.read_text())
        for case in table["cases"]
    ]
