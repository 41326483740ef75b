"""Members of a manifest, read one by one, so that none is ignored.

Numbers and truth values are written as the API server takes them: decimal numbers in quotes, whole numbers and true or
false without.
"""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from tunesmith_contract.base import Document
from tunesmith_data.failures import UserError

D = TypeVar("D", bound=Document)

_DECIMAL = re.compile(r"[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]{1,2})?")


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

    def decimal(
        self,
        name: str,
        *,
        at_least: float = 0.0,
        above: float | None = None,
        below: float | None = None,
        at_most: float | None = None,
    ) -> str | None:
        """Decimal number of a member, which is written in quotes; None where it is missing.

        Raises:
            UserError: it is no such number, or not within the bounds.
        """
        value = self.take(name)
        if value is None:
            return None
        _check_form(Decimal, value, f"{self.path}.{name}")
        number = float(value)
        bounds = (
            (f"of at least {at_least:g}", number >= at_least),
            (f"above {above:g}" if above is not None else "", above is None or number > above),
            (f"below {below:g}" if below is not None else "", below is None or number < below),
            (f"of at most {at_most:g}" if at_most is not None else "", at_most is None or number <= at_most),
        )
        violated = next((words for words, holds in bounds if not holds), None)
        if violated is not None:
            raise UserError("InvalidEvalRun", f"{self.path}.{name} is {value}: write a number {violated}")
        return str(value)

    def whole(self, name: str, *, at_least: int = 1) -> int | None:
        """Whole number of a member; None where it is missing.

        Raises:
            UserError: it is none, or too small.
        """
        value: int | None = self.take(name)
        if value is not None:
            _check_form(int, value, f"{self.path}.{name}")
            if value < at_least:
                raise UserError("InvalidEvalRun", f"{self.path}.{name} is {value}: write {at_least} or more")
        return value

    def flag(self, name: str) -> bool:
        """Truth value of a member; False where it is missing.

        Raises:
            UserError: it is neither true nor false.
        """
        value = self.take(name, False)
        _check_form(bool, value, f"{self.path}.{name}")
        return bool(value)

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
        taken = {}
        for name in names:
            value = self.take(name)
            if value is not None:
                taken[name] = self._formed(kind, name, value)
        self.close()
        given = {name: value for name, value in values.items() if value is not None}
        try:
            return kind.model_validate(taken | given)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            names_of_place = (to_camel(part) if isinstance(part, str) else str(part) for part in first["loc"])
            place = ".".join([self.path, *names_of_place])
            raise UserError("InvalidEvalRun", f"{place}: {_advice(first)}") from None

    def _formed(self, kind: type[Document], name: str, value: Any) -> Any:
        """Value of a document's member, checked for its form; a document where the member is one."""
        path = f"{self.path}.{name}"
        field = next((each for each in kind.model_fields.values() if each.alias == name), None)
        types = _types_in(field.annotation if field else kind.model_fields[name].annotation)
        for wanted in types:
            if isinstance(wanted, type) and issubclass(wanted, Document):
                names = [each.alias or written for written, each in wanted.model_fields.items()]
                return Members(value, path).document(wanted, *names)
            if wanted in _FORMS:
                _check_form(wanted, value, path)
        return value


def _advice(error: ErrorDetails) -> str:
    """Advice on a value that does not fit: the form to write instead."""
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


#: Forms in which values are written, by the type that they are read as.
_FORMS = {
    float: 'a decimal number in quotes, such as "0.05"',
    Decimal: 'a decimal number in quotes, such as "0.05"',
    int: "a whole number without quotes, such as 20",
    bool: "true or false without quotes",
}


def _check_form(wanted: type, value: Any, path: str) -> None:
    if wanted in {float, Decimal}:
        fits = isinstance(value, str) and bool(_DECIMAL.fullmatch(value))
    else:
        fits = type(value) is wanted
    if not fits:
        raise UserError("InvalidEvalRun", f"{path} is {_shown(value)}: write {_FORMS[wanted]}")


def _types_in(annotation: Any) -> list[Any]:
    """Types that a value may have, without None; the items of a list don't count."""
    if isinstance(annotation, type):
        return [annotation]
    return [found for part in get_args(annotation)[:2] for found in _types_in(part)]


def _shown(value: Any) -> str:
    return repr(value)[:40] if isinstance(value, str | int | float) else _name(value)


def _name(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number")
