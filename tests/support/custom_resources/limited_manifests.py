"""A manifest for each field that an admission policy can limit."""

from collections.abc import Iterator
from typing import Any

from custom_resources.documented_manifests import DOCUMENTED
from custom_resources.manifest_cases import EXAMPLES, GOOD, load_good, merge, read_documents

from tunesmith.api import KINDS

_PLURALS = {kind.kind_name: kind.plural for kind in KINDS}
_ENDPOINT = {"url": "https://elsewhere.example.com/v1", "model": "model"}
_MODEL = {"model": {"uri": "hf://elsewhere/model"}}
_JUDGE = {"endpoint": _ENDPOINT}
_NO_SIDE = {"base": None, "uri": None, "digest": None, "secretRef": None, "fineTuneJobRef": None}
_OUTPUT = {"output": {"uri": "pvc://artifacts/reports"}}
_ROWS = {"uri": "pvc://data/test.jsonl"}


def _suites(*metrics: dict[str, Any], **members: Any) -> list[dict[str, Any]]:
    gated = ({"type": "ExactMatch"}, {"type": "JSONFields"})
    return [{"name": "task", "dataset": _ROWS, "metrics": [*gated, *metrics], **members}]


#: Parts of the spec of an EvalRun, and of spec.evaluation of a FineTuneJob, that no example has in both.
_EVALUATION: dict[str, dict[str, Any]] = {
    "baseline.model.uri": {"baseline": _NO_SIDE | _MODEL},
    "baseline.endpoint.url": {"baseline": _NO_SIDE | {"endpoint": _ENDPOINT}},
    "references[].model.uri": {"references": [{"name": "other"} | _MODEL]},
    "references[].endpoint.url": {"references": [{"name": "other", "endpoint": _ENDPOINT}]},
    "suites[].container.image": {
        "suites": _suites(
            {"type": "ContainerScore"}, container={"image": "elsewhere.example.com/suite@sha256:" + "1" * 64}
        )
    },
    "suites[].metrics[].judge.endpoint.url": {"suites": _suites({"type": "Judge", "judge": _JUDGE})},
    "suites[].metrics[].embedding.url": {
        "suites": _suites({"type": "EmbeddingSimilarity", "embedding": _ENDPOINT})
    },
    "safety.judge.endpoint.url": {"safety": {"judge": _JUDGE}},
    "activeDeadlineSeconds": {"activeDeadlineSeconds": 604800, "compute": {"gpus": 1}},
}
_PROXY = "http://elsewhere.example.com:3128"
#: Members of a pod template: how many names of the path, and what to write.
_OUTBOUND: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "hfEndpoint": (("hfEndpoint",), {"hfEndpoint": "https://elsewhere.example.com"}),
    "httpProxy": (("proxy", "httpProxy"), {"proxy": {"httpProxy": _PROXY}}),
    "httpsProxy": (("proxy", "httpsProxy"), {"proxy": {"httpsProxy": _PROXY}}),
}
_FULL = {
    "finetunejobs": "finetunejob-full",
    "evalruns": "evalrun-artifact",
    "adapterdeployments": "adapterdeployment",
}
_REWARD_MODEL = {"uri": "pvc://artifacts/reward", "baseModel": {"uri": "hf://elsewhere/base"}}
_REWARDS: dict[str, list[dict[str, Any]]] = {
    "endpoint.url": [{"name": "endpoint", "endpoint": {"url": _ENDPOINT["url"]}}],
    "model.uri": [{"name": "model", "model": _REWARD_MODEL}],
    "model.baseModel.uri": [
        {"name": "model", "model": {"uri": "pvc://admitted/reward", "baseModel": _REWARD_MODEL["baseModel"]}}
    ],
}


def manifest_with(plural: str, field: str) -> dict[str, Any]:
    """A valid manifest of the kind that has the field; an example has it, or it is patched into one.

    Raises:
        LookupError: neither is so: add a patch.
    """
    if (patched := _patched(plural, field)) is not None:
        return patched
    for body in _examples():
        if _PLURALS.get(body["kind"]) == plural and any(_values(body, field.split("."))):
            return body
    raise LookupError(f"no manifest of {plural} has {field}")


def _patched(plural: str, field: str) -> dict[str, Any] | None:
    base, patch = _patch(plural, field)
    return {**merge(load_good(base), {"spec": patch})} if patch else None


def _patch(plural: str, field: str) -> tuple[str, dict[str, Any] | None]:
    """A good manifest, and what gives its spec the field."""
    if (name := field.rpartition(".")[2]) in _OUTBOUND:
        parts = field.removeprefix("spec.").split(".")[: -len(_OUTBOUND[name][0])]
        patch: dict[str, Any] = _OUTBOUND[name][1]
        for part in reversed(parts):
            patch = {part: patch}
        return _FULL[plural], patch
    if plural == "adapterdeployments":
        image = {"engine": {"image": "elsewhere.example.com/engine:1"}}
        return "adapterdeployment", image if field == "spec.engine.image" else None
    if plural == "evalruns":
        if field == "spec.candidate.model.uri":
            return "evalrun-artifact", {"candidate": _NO_SIDE | _MODEL} | _OUTPUT
        return "evalrun-artifact", _EVALUATION.get(field.removeprefix("spec."))
    if rewards := _REWARDS.get(field.removeprefix("spec.method.rloo.rewards[].")):
        return "finetunejob-rewards", {"method": {"grpo": None, "rloo": {"rewards": rewards}}}
    evaluation = _EVALUATION.get(field.removeprefix("spec.evaluation."))
    return "finetunejob-full", {"evaluation": evaluation} if evaluation else None


def _examples() -> Iterator[dict[str, Any]]:
    yield from map(load_good, GOOD)
    for path in EXAMPLES:
        yield from read_documents(path.read_text())
    yield from (shown.body for shown in DOCUMENTED)


def _values(node: Any, names: list[str]) -> Iterator[Any]:
    if not names:
        yield node
        return
    name, *rest = names
    member = node.get(name.removesuffix("[]")) if isinstance(node, dict) else None
    for each in member or [] if name.endswith("[]") else [member]:
        if each is not None:
            yield from _values(each, rest)
