"""Validation rules in CEL with messages, declared beside the types that they validate."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

VALIDATIONS = "x-kubernetes-validations"


@dataclass(frozen=True, slots=True)
class Rule:
    """Validation rule of the API server, with a Python twin if the operator's own code relies on it.

    Attributes:
        cel: the CEL expression; ``self`` is the value that the rule is declared on.
        message: the message for people, which says what to write.
        check: the same rule on the Python value, for what the operator takes for granted when it reads an object: the
            form of a value that it parses, exactly one member of a union. Other rules are checked by the API server
            alone.
        field: the member that the message is about, such as ``.adapter``; empty for the value itself.
    """

    cel: str
    message: str
    check: Callable[[Any], bool] | None = None
    field: str = ""

    def to_schema(self) -> dict[str, str]:
        """Item of ``x-kubernetes-validations``."""
        schema = {"rule": self.cel, "message": self.message}
        return schema | ({"fieldPath": self.field} if self.field else {})

    def verify(self, value: Any) -> None:
        """Check the Python value.

        Raises:
            ValueError: the rule is violated; the text is its message.
        """
        if self.check is not None and not self.check(value):
            raise ValueError(self.message)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        return core_schema.no_info_after_validator_function(self._verified, schema) if self.check else schema

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return with_rules(handler(schema), (self,))

    def _verified(self, value: Any) -> Any:
        self.verify(value)
        return value


def with_rules(schema: JsonSchemaValue, rules: tuple[Rule, ...]) -> JsonSchemaValue:
    """Schema with further rules."""
    if not rules:
        return schema
    return schema | {VALIDATIONS: [*schema.get(VALIDATIONS, []), *(rule.to_schema() for rule in rules)]}


def exactly_one(names: tuple[str, ...], message: str) -> Rule:
    """Rule that exactly one of the members is set."""
    members = ", ".join(f"has(self.{to_camel(name)})" for name in names)
    return Rule(
        f"[{members}].filter(x, x).size() == 1",
        message,
        lambda model: sum(getattr(model, name) is not None for name in names) == 1,
    )


#: The artifact at a URI is always pinned by its digest.
DIGEST_WITH_URI = Rule(
    "has(self.uri) == has(self.digest)",
    "Set uri and digest together: the digest identifies the exact artifact.",
    lambda model: (model.uri is None) == (model.digest is None),
)


def any_of(words: Sequence[str]) -> str:
    """Alternatives as text, such as ``dpo, kto or reward``."""
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def keyed_by(*keys: str) -> dict[str, Any]:
    """Schema extension of a list that is a map: keys are unique, and server-side apply owns single items."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def is_zero(decimal: str) -> str:
    """CEL expression that a decimal string is 0. An ill-formed string is not; its own rule reports it."""
    return f"{decimal}.matches(r'^[0.]+([eE].*)?$')"


def matching(pattern: str, message: str) -> Rule:
    """Rule that a string matches the pattern, which RE2 and Python must read alike."""
    compiled = re.compile(pattern)
    return Rule(f"self.matches(r'{pattern}')", message, lambda value: compiled.search(value) is not None)
