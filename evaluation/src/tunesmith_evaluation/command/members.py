"""Members of a manifest, read one by one, so that none is ignored."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from tunesmith_contract.base import Document
from tunesmith_data.failures import UserError

D = TypeVar("D", bound=Document)


class Members:
    """Members of a mapping in a manifest.

    Args:
        value: the mapping, as YAML holds it.
        path: its place in the manifest, for messages: ``spec.suites[0]``.

    Raises:
        UserError: it is no mapping.
    """

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, Mapping):
            raise UserError(
                "InvalidEvalRun", f"{path} holds {_name(value)}: write a mapping of names and values"
            )
        odd = next((key for key in value if not isinstance(key, str)), None)
        if odd is not None:
            raise UserError("InvalidEvalRun", f"{path} has {odd} for a name: write a text, in quotes")
        self._rest = dict(value)
        self._known: set[str] = set()
        self.path = path

    def __contains__(self, name: str) -> bool:
        return name in self._rest

    def take(self, name: str, default: Any = None) -> Any:
        """Value of a member, which counts as read; the default where it is missing or null."""
        self._known.add(name)
        value = self._rest.pop(name, None)
        return default if value is None else value

    def text(self, name: str) -> str | None:
        """Text of a member; None where it is missing.

        Raises:
            UserError: it is no text.
        """
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            raise UserError(
                "InvalidEvalRun", f"{self.path}.{name} holds {_name(value)}: write a text in quotes"
            )
        return value

    def number(self, name: str, default: float) -> float:
        """Number of a member, which may be written as text, as the API wants it; the default where it is missing.

        Raises:
            UserError: it is no number.
        """
        value = self.take(name, default)
        try:
            return float(value)
        except (TypeError, ValueError):
            raise UserError(
                "InvalidEvalRun", f"{self.path}.{name} is no number: write one in quotes"
            ) from None

    def flag(self, name: str) -> bool:
        """Truth value of a member; false where it is missing.

        Raises:
            UserError: it is none; a text such as "false" would count as true.
        """
        value = self.take(name, False)
        if not isinstance(value, bool):
            raise UserError("InvalidEvalRun", f"{self.path}.{name} holds {_name(value)}: write true or false")
        return value

    def members(self, name: str) -> "Members | None":
        """A mapping below this one; None where it is missing."""
        value = self.take(name)
        return None if value is None else Members(value, f"{self.path}.{name}")

    def list(self, name: str) -> Iterator["Members"]:
        """Mappings in a list below this one.

        Raises:
            UserError: it is no list.
        """
        value = self.take(name, [])
        if not isinstance(value, list):
            raise UserError("InvalidEvalRun", f"{self.path}.{name} holds {_name(value)}: write a list")
        for index, item in enumerate(value):
            yield Members(item, f"{self.path}.{name}[{index}]")

    def names(self) -> tuple[str, ...]:
        """Names of the members that were not read yet."""
        return tuple(self._rest)

    def close(self) -> None:
        """Check that nothing is left.

        Raises:
            UserError: a member was not read.
        """
        if self._rest:
            name = next(iter(self._rest))
            near = {known.lower(): known for known in self._known}
            found = get_close_matches(name.lower(), near, n=1, cutoff=0.75)
            advice = f"did you mean {near[found[0]]}?" if found else "leave it out"
            raise UserError("InvalidEvalRun", f"{self.path}.{name} is not known: {advice}")

    def document(self, kind: type[D], *names: str, **values: Any) -> D:
        """Document of the values and of members that have the same names there.

        Args:
            kind: class of the document.
            names: the members; nothing else may be left.
            values: values by the document's names in Python; None for its default.

        Raises:
            UserError: a value does not fit, or a member is not known.
        """
        taken = {name: value for name in names if (value := self.take(name)) is not None}
        self.close()
        given = {name: value for name, value in values.items() if value is not None}
        by_alias = {field.alias: field for field in kind.model_fields.values()}
        for name, value in (taken | given).items():
            field = kind.model_fields.get(name) or by_alias[name]
            if isinstance(value, bool) and field.annotation is not bool:
                # Python takes it for 0 or 1.
                place = f"{self.path}.{to_camel(name)}"
                raise UserError("InvalidEvalRun", f"{place} holds true or false: write a number or a text")
        try:
            return kind.model_validate(taken | given)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            names_of_place = (to_camel(part) if isinstance(part, str) else str(part) for part in first["loc"])
            place = ".".join([self.path, *names_of_place])
            raise UserError("InvalidEvalRun", f"{place}: {_advice(first)}") from None


def _advice(error: ErrorDetails) -> str:
    """What to write in place of a value that does not fit."""
    match error["type"]:
        case "extra_forbidden":
            return "this is not known: leave it out"
        case "missing":
            return "this is missing: write it"
        case "tuple_type" | "list_type":
            return "write a list"
        case "dict_type" | "model_type" | "model_attributes_type":
            return "write a mapping of names and values"
        case "too_short":
            return "write at least one"
        case "string_type":
            return "write a text in quotes"
        case "enum":
            known = error["ctx"]["expected"]
            near = get_close_matches(str(error["input"]), re.findall(r"'([^']+)'", known), n=1)
            return f"did you mean {near[0]}? The values are {known}" if near else f"write one of {known}"
        case _:
            return error["msg"]


def _name(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number")
