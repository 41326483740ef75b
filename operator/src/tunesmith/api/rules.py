"""Rules with a sentence, declared beside their type: one source for the API server and the models."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

VALIDATIONS = "x-kubernetes-validations"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that the API server checks in CEL and, where ``check`` is given, the model checks too.

    Attributes:
        cel: the expression; ``self`` is the value it stands on.
        message: the sentence that people see; it says what to write.
        check: the same rule on the Python value. Transition rules have none: the old object is not at hand.
        field: the member that the sentence is about, such as ``.adapter``; empty for the value itself.
    """

    cel: str
    message: str
    check: Callable[[Any], bool] | None = None
    field: str = ""

    def to_schema(self) -> dict[str, str]:
        """The rule as an item of ``x-kubernetes-validations``."""
        schema = {"rule": self.cel, "message": self.message}
        return schema | ({"fieldPath": self.field} if self.field else {})

    def verify(self, value: Any) -> None:
        """Check the Python value.

        Raises:
            ValueError: the rule's sentence.
        """
        if self.check is not None and not self.check(value):
            raise ValueError(self.message)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._verified, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return with_rules(handler(schema), (self,))

    def _verified(self, value: Any) -> Any:
        self.verify(value)
        return value


def with_rules(schema: JsonSchemaValue, rules: tuple[Rule, ...]) -> JsonSchemaValue:
    """The schema with the rules behind those that it has."""
    if not rules:
        return schema
    return schema | {VALIDATIONS: [*schema.get(VALIDATIONS, []), *(rule.to_schema() for rule in rules)]}


def exactly_one(names: tuple[str, ...], message: str) -> Rule:
    """A union: one of the members must be there, and no other."""
    members = ", ".join(f"has(self.{to_camel(name)})" for name in names)
    return Rule(
        f"[{members}].filter(x, x).size() == 1",
        message,
        lambda model: sum(getattr(model, name) is not None for name in names) == 1,
    )


def keyed_by(*keys: str) -> dict[str, Any]:
    """Extension of a list that is a map: no two items have equal keys, and appliers own single items."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def is_zero(decimal: str) -> str:
    """CEL: the decimal string is 0. An ill-formed one is not, and is told by its own rule."""
    return f"{decimal}.matches(r'^[0.]+([eE].*)?$')"


def matching(pattern: str, message: str) -> Rule:
    """A string of this form; the pattern is one that RE2 and Python read alike."""
    compiled = re.compile(pattern)
    return Rule(f"self.matches(r'{pattern}')", message, lambda value: compiled.search(value) is not None)
