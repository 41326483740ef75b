"""Reward for an answer that is JSON and matches a schema."""

import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NoReturn

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import SchemaError
from jsonschema.validators import extend, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import specification_with

from tunesmith_contract.methods import JSONSchemaReward
from tunesmith_data.failures import UserError

from .reward_function import Scorer, score_each_text
from .rule_rewards import compile_pattern

_REFERENCES = ("$ref", "$dynamicRef")
#: Raised by JSON values that are too deep or too large.
_TOO_MUCH = (RecursionError, ArithmeticError)


def build_json_schema(name: str, spec: JSONSchemaReward) -> Scorer:
    """Scorer: 1 if the whole answer is JSON that matches the schema, else 0.

    Raises:
        UserError: the schema is none, or asks for what is not allowed.
    """
    validator = compile_schema(spec.json_schema, f"reward {name}", "RewardSchema")

    def score(text: str) -> float:
        try:
            return float(validator.is_valid(json.loads(text, parse_constant=_refuse)))
        except (ValueError, *_TOO_MUCH):
            return 0.0

    return score_each_text(score)


def compile_schema(text: str, where: str, reason: str) -> Any:
    """The validator of a schema; it fetches nothing, and its patterns take linear time.

    Args:
        text: the schema as JSON text.
        where: what has the schema, for messages.
        reason: reason of the error.

    Raises:
        UserError: it is no schema, or asks for what is not allowed.
    """

    def wrong(problem: str, advice: str) -> UserError:
        return UserError(reason, f"{where}: the schema {problem}: {advice}")

    try:
        schema = json.loads(text, parse_constant=_refuse)
        base = validator_for(schema, default=Draft202012Validator)
        base.check_schema(schema)
    except ValueError as error:
        raise wrong(f"is not JSON ({error})", "write a JSON schema as JSON text") from error
    except SchemaError as error:
        raise wrong(f"is not a JSON schema ({error.message})", "correct it") from error
    for node in _nodes(schema):
        if isinstance(pattern := node.get("pattern"), str):
            compile_pattern(pattern, where, reason)
        if isinstance(node.get("patternProperties"), dict):
            advice = "name its properties, or write additionalProperties or propertyNames"
            raise wrong("has patternProperties, which are not supported", advice)
    registry: Registry[Any] = Registry()
    _check_references(schema, base, registry, wrong)
    return extend(base, {"pattern": _pattern})(schema, registry=registry)


def _check_references(
    schema: Any, base: Any, registry: "Registry[Any]", wrong: Callable[[str, str], UserError]
) -> None:
    """Check that every reference leads to a place in the schema itself."""
    if not isinstance(schema, dict):
        return
    specification = specification_with(base.META_SCHEMA["$schema"])
    resolver = registry.resolver_with_root(specification.create_resource(schema))
    references = [node[key] for node in _nodes(schema) for key in _REFERENCES if key in node]
    for reference in references:
        if not isinstance(reference, str):
            continue  # a property of that name
        try:
            if not reference.startswith("#"):
                raise Unresolvable(reference)
            resolver.lookup(reference)
        except Unresolvable as error:
            advice = "write what it refers to into $defs, and refer to it by #/$defs/name"
            raise wrong(f"refers to {reference!r}, which is not in it", advice) from error


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """All objects in a schema."""
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from _nodes(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _nodes(value)


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """The keyword ``pattern``, by RE2."""
    if validator.is_type(instance, "string") and not _compiled(pattern)(instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    return compile_pattern(pattern, "jsonSchema")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
