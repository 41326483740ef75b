"""Checks of the ValidatingAdmissionPolicies of the chart: one CEL expression for each field that a policy limits.

The fields are found in the schemas of the kinds, so that a new field that names an image, a model or an endpoint is
limited from the day it exists. The chart puts the admitted values of each policy into ``variables.<limit>``.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from .crd import KINDS, build_schema
from .evalrun import EvalRun, EvaluationTemplate
from .finetunejob import FineTuneJob

Schema = dict[str, Any]
Check = dict[str, str]


class Limit(StrEnum):
    """What a policy can limit; the names of the chart's values."""

    BASE_MODELS = "baseModels"
    IMAGES = "images"
    ENDPOINTS = "endpoints"
    METHODS = "methods"
    GPU_HOURS = "gpuHours"


#: Last names of a path by which a field is limited.
_ENDINGS: tuple[tuple[tuple[str, ...], Limit], ...] = (
    (("image",), Limit.IMAGES),
    (("url",), Limit.ENDPOINTS),
    (("traces", "endpoint"), Limit.ENDPOINTS),
    # A mirror or a proxy decides what an admitted name stands for.
    (("hfEndpoint",), Limit.ENDPOINTS),
    (("httpProxy",), Limit.ENDPOINTS),
    (("httpsProxy",), Limit.ENDPOINTS),
    (("baseModel", "uri"), Limit.BASE_MODELS),
    (("model", "uri"), Limit.BASE_MODELS),
    (("teacher", "uri"), Limit.BASE_MODELS),
)

_DEFAULT_DEADLINE = EvaluationTemplate.model_fields["active_deadline_seconds"].default
_UPDATE = 'request.operation == "UPDATE"'


def build_checks() -> dict[str, list[Check]]:
    """The checks of each kind, by its plural.

    Each has ``limit``, ``field`` and the CEL ``expression``; ``value`` is an expression of what to show in the message.
    """
    return {
        kind.plural: [
            *(_check_field(limit, path) for path, limit in limited_fields(build_schema(kind))),
            *_OTHER_CHECKS.get(kind.kind_name, []),
        ]
        for kind in KINDS
    }


def limited_fields(schema: Schema) -> Iterator[tuple[str, Limit]]:
    """Paths of the fields of a spec that a list of admitted values limits, with ``[]`` after lists."""
    for path in _text_fields(schema["properties"]["spec"], "spec"):
        names = tuple(path.replace("[]", "").split("."))
        for ending, limit in _ENDINGS:
            if names[-len(ending) :] == ending:
                yield path, limit


def _text_fields(schema: Schema, path: str) -> Iterator[str]:
    if schema.get("type") == "string":
        yield path
    for name, member in schema.get("properties", {}).items():
        yield from _text_fields(member, f"{path}.{name}")
    if isinstance(schema.get("items"), dict):
        yield from _text_fields(schema["items"], f"{path}[]")


def _check_field(limit: Limit, path: str) -> Check:
    """A value is admitted that is absent, listed, or was there before: a policy concerns what is added."""
    first, *lists = path.split("[].")
    unchanged = f"({_UPDATE} && {_optional('object', first)} == {_optional('oldObject', first)})"
    if not lists:
        value = f'{_optional("object", first)}.orValue("")'
        return _check(limit, path, f"{unchanged} || {_admitted(limit, value)}", value)
    inner = _admitted(limit, f'{_optional(f"item{len(lists)}", lists[-1])}.orValue("")')
    for number in range(len(lists), 0, -1):
        outer = (
            _optional("object", first) if number == 1 else _optional(f"item{number - 1}", lists[number - 2])
        )
        inner = f"{outer}.orValue([]).all(item{number}, {inner})"
    return _check(limit, path, f"{unchanged} || {inner}")


def _optional(root: str, path: str) -> str:
    return root + "".join(f".?{name}" for name in path.split("."))


def _admitted(limit: Limit, value: str) -> str:
    """A pattern with ``*`` at its end admits what begins so; any other one admits itself."""
    matches = f'p.endsWith("*") ? {value}.startsWith(p.substring(0, p.size() - 1)) : {value} == p'
    return f'({value} == "" || variables.{limit}.exists(p, {matches}))'


def _check(limit: Limit, field: str, expression: str, value: str = "") -> Check:
    check = {"limit": str(limit), "field": field, "expression": expression}
    return check | ({"value": value} if value else {})


def _methods() -> list[Check]:
    members = build_schema(FineTuneJob)["properties"]["spec"]["properties"]["method"]["properties"]
    return [
        _check(
            Limit.METHODS,
            f"spec.method.{name}",
            f"({_UPDATE} && oldObject.?spec.?method.?{name}.hasValue()) || "
            f'!object.?spec.?method.?{name}.hasValue() || "{name}" in variables.{Limit.METHODS}',
        )
        for name in members
    ]


def _budget(field: str, needed: str) -> Check:
    """GPU hours that a spec has to limit where ``needed`` is true."""
    value = _optional("object", field)
    unchanged = f"({_UPDATE} && {value} == {_optional('oldObject', field)})"
    within = f"({value}.hasValue() && double({value}.value()) <= variables.{Limit.GPU_HOURS})"
    return _check(Limit.GPU_HOURS, field, f"{unchanged} || !({needed}) || {within}")


def _longest_evaluation(root: str, needed: str) -> Check:
    """GPU hours that pods of an evaluation can hold: it has no budget, but a deadline."""
    field = f"{root}.activeDeadlineSeconds"
    gpus, pods = (
        f"{_optional('object', f'{root}.{name}')}.orValue(1)" for name in ("compute.gpus", "parallelism")
    )
    deadline = f"{_optional('object', field)}.orValue({_DEFAULT_DEADLINE})"
    names = ("compute.gpus", "parallelism", "activeDeadlineSeconds")
    same = (
        f"{_optional('object', f'{root}.{name}')} == {_optional('oldObject', f'{root}.{name}')}"
        for name in names
    )
    unchanged = " && ".join((_UPDATE, *same))
    within = f"double({gpus} * {pods} * {deadline}) / 3600.0 <= variables.{Limit.GPU_HOURS}"
    return _check(Limit.GPU_HOURS, field, f"({unchanged}) || !({needed}) || {within}")


_TRAINS_ON_GPUS = "object.?spec.?compute.?gpusPerNode.orValue(1) > 0"
_OTHER_CHECKS = {
    FineTuneJob.kind_name: [
        *_methods(),
        _budget("spec.budget.gpuHours", _TRAINS_ON_GPUS),
        _budget("spec.search.budget.gpuHours", f"{_TRAINS_ON_GPUS} && object.?spec.?search.hasValue()"),
        _longest_evaluation("spec.evaluation", "object.?spec.?evaluation.hasValue()"),
    ],
    EvalRun.kind_name: [_longest_evaluation("spec", "true")],
}
