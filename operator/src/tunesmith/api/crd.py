"""CustomResourceDefinitions built from the models: structural schemas, rules, defaults and printer columns."""

import json
from typing import Any

from .adapterdeployment import AdapterDeployment
from .common import CATEGORY, GROUP, VERSION, Resource
from .evalrun import EvalRun
from .finetunejob import FineTuneJob
from .reasons import ConditionType
from .rules import Rule, with_rules

Schema = dict[str, Any]

KINDS: tuple[type[Resource], ...] = (FineTuneJob, EvalRun, AdapterDeployment)

_TYPE_AND_METADATA: Schema = {
    "apiVersion": {"type": "string", "description": f"The API version, {GROUP}/{VERSION}."},
    "kind": {"type": "string", "description": "The kind of the resource."},
    "metadata": {"type": "object"},
}
#: Transition time in the default conditions, before the operator has processed the resource.
UNSEEN_TIME = "1970-01-01T00:00:00Z"
_REQUIRED_MESSAGE = "x-required-message"


def _column(name: str, path: str, kind: str = "string", wide: bool = False, description: str = "") -> Schema:
    column: Schema = {"name": name, "type": kind, "jsonPath": path}
    if description:
        column["description"] = description
    return column | ({"priority": 1} if wide else {})


_AGE = _column("Age", ".metadata.creationTimestamp", "date")
_COLUMNS: dict[str, tuple[Schema, ...]] = {
    FineTuneJob.kind_name: (
        _column("Phase", ".status.phase"),
        _column("Progress", ".status.progress.percent"),
        _column("Loss", ".status.progress.loss", description="Training loss in nats per token"),
        _column("ETA", ".status.progress.remaining", description="Estimated remaining time"),
        _AGE,
        _column("Method", ".status.method", wide=True),
        _column("Trials", ".status.search.ended", wide=True, description="Ended trials of a search"),
        _column("Model", ".spec.baseModel.uri", wide=True),
        _column("Artifact", ".status.artifact.uri", wide=True),
    ),
    EvalRun.kind_name: (
        _column("Phase", ".status.phase"),
        _column("Verdict", ".status.verdict"),
        _column("Change", ".status.change", description="Candidate minus baseline, with its uncertainty"),
        _column("Progress", ".status.progress.percent", description="Share of the answers that are there"),
        _column("ETA", ".status.progress.remaining", description="Estimated remaining time"),
        _AGE,
        _column("Candidate", ".status.candidate.digest", wide=True),
        _column("Baseline", ".status.baseline.digest", wide=True),
        _column("Report", ".status.report.uri", wide=True),
    ),
    AdapterDeployment.kind_name: (
        _column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        _column("Adapters", ".status.adaptersStable", description="Stable adapters out of all adapters"),
        _column("Pods", ".status.readyReplicas", "integer", description="Pods that accept requests"),
        _column("Next", ".status.nextSet", description="Pods of the next set that are ready, out of all"),
        _AGE,
        _column("Model", ".spec.baseModel.uri", wide=True),
        _column("URL", ".status.url", wide=True),
    ),
}

#: Scale subresource of kinds with replicas. An unset ``spec.replicas`` would make it fail, so that has a default.
_SCALE: dict[str, Schema] = {
    AdapterDeployment.kind_name: {
        "scale": {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    }
}


def build_crd(kind: type[Resource]) -> Schema:
    """CustomResourceDefinition of a kind, as plain JSON."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind_name,
                "listKind": f"{kind.kind_name}List",
                "plural": kind.plural,
                "singular": kind.kind_name.lower(),
                "shortNames": [kind.short_name],
                "categories": [CATEGORY],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": build_schema(kind)},
                    "subresources": {"status": {}} | _SCALE.get(kind.kind_name, {}),
                    "additionalPrinterColumns": list(_COLUMNS[kind.kind_name]),
                }
            ],
        },
    }


def build_schema(kind: type[Resource]) -> Schema:
    """Structural schema of a kind: references inlined, no null branches, metadata left to the API server."""
    source = kind.model_json_schema(by_alias=True)
    definitions = source.pop("$defs")
    members = source.pop("properties")
    written = {name: _without_defaults(definition) for name, definition in definitions.items()}
    status = _structural(
        {"$ref": members["status"]["$ref"], "description": members["status"]["description"]}, written
    )
    spec = _structural(members["spec"], definitions)
    properties = _TYPE_AND_METADATA | {"spec": spec, "status": status | {"default": _default_status(kind)}}
    schema = {"description": source["description"], "type": "object", "required": ["spec"]}
    return with_rules(schema | {"properties": properties}, kind.rules)


def _default_status(kind: type[Resource]) -> Schema:
    """Status until the operator writes one: kstatus treats an object without conditions as ready."""
    explanation = {
        "reason": "Pending",
        "message": "The operator has not processed the resource yet.",
        "lastTransitionTime": UNSEEN_TIME,
    }
    conditions = [
        {"type": ConditionType.READY.value, "status": "Unknown", **explanation},
        {"type": ConditionType.RECONCILING.value, "status": "True", **explanation},
    ]
    return {"conditions": conditions} | ({} if kind is AdapterDeployment else {"phase": "Pending"})


def _without_defaults(definition: Schema) -> Schema:
    """Definition of a status model without defaults: the API server must not fill in status."""
    members = {
        name: {key: value for key, value in member.items() if key != "default"}
        for name, member in definition.get("properties", {}).items()
    }
    return definition | ({"properties": members} if members else {})


def _structural(schema: Schema, definitions: dict[str, Schema], in_list: bool = False) -> Schema:
    """Structural form of one node and all nodes below it.

    Below the items of a list, defaults are in the descriptions only, and the models fill them in: what the API server
    writes into an item makes client-side apply see another list than the file has, each time.
    """
    schema = _inlined(schema, definitions)
    for key in ("title", "discriminator"):
        schema.pop(key, None)
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    if schema.get("type") == "object":
        schema = _object(schema, definitions, in_list)
    if "items" in schema:
        schema["items"] = _structural(schema["items"], definitions, in_list=True)
        schema.setdefault("x-kubernetes-list-type", "atomic")
    if schema.get("type") == "integer":
        schema["format"] = "int64"
    schema = _with_default_in_description(schema)
    if in_list:
        schema.pop("default", None)
    return schema


def _with_default_in_description(schema: Schema) -> Schema:
    """Node with its default in the description, because ``kubectl explain`` does not show defaults."""
    default = schema.get("default")
    if default in (None, "", []) or isinstance(default, dict):
        return schema
    shown = default if isinstance(default, str) else json.dumps(default)
    return schema | {"description": f"{schema['description']} Defaults to {shown}."}


def _inlined(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """Node without ``$ref`` and without the null branch of an optional member; its own keywords win."""
    schema = dict(schema)
    if {"type": "null"} in schema.get("anyOf", []):
        (branch,) = (branch for branch in schema.pop("anyOf") if branch != {"type": "null"})
        schema = branch | schema
    while "$ref" in schema:
        name = schema.pop("$ref").rpartition("/")[2]
        schema = definitions[name] | schema
    if "default" in schema:
        default = _without_nulls(schema.pop("default"))
        schema |= {} if default is None else {"default": default}
    return schema


def _object(schema: Schema, definitions: dict[str, Schema], in_list: bool) -> Schema:
    if isinstance(schema.get("additionalProperties"), dict):
        schema["additionalProperties"] = _structural(schema["additionalProperties"], definitions, in_list)
        schema["x-kubernetes-map-type"] = "granular"
        return schema
    schema.pop("additionalProperties", None)
    properties = {
        name: _structural(member, definitions, in_list)
        for name, member in schema.get("properties", {}).items()
    }
    schema["properties"] = properties
    return _with_required_messages(schema)


def _without_nulls(value: Any) -> Any:
    """Default without absent members, as the API server accepts it."""
    if isinstance(value, dict):
        return {name: _without_nulls(member) for name, member in value.items() if member is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _with_required_messages(schema: Schema) -> Schema:
    """Schema in which members with their own required message are required by a rule instead of ``required``."""
    for name, member in schema["properties"].items():
        message = member.pop(_REQUIRED_MESSAGE, None)
        if message is not None:
            schema["required"] = [other for other in schema["required"] if other != name]
            schema = with_rules(schema, (Rule(f"has(self.{name})", message, field=f".{name}"),))
    if not schema.get("required", True):
        del schema["required"]
    return schema
