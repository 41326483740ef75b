"""Bounds of structured outputs: the engine compiles schemas and expressions before it answers anybody.

A compiler may take minutes for a few hundred characters: for nested counted repeats, for thousands of members, for
deeply nested schemas, for references that are written out. Grammars can't be bounded by looking at them, so they are
refused.
"""

import re
from typing import Any

import orjson

from .bounds import items
from .expansion import count_optional, measure

MAX_SCHEMA_CHARACTERS = 65_536
MAX_SCHEMA_NODES = 4_096
MAX_SCHEMA_DEPTH = 32
#: Members and levels of a schema with each ``$ref`` written out.
MAX_EXPANDED_NODES = 100_000
MAX_EXPANDED_DEPTH = 128
#: Members of one object that may be left out: in all objects together, their squares are bounded by its square.
MAX_OPTIONAL = 256
#: States of all expressions in a schema.
MAX_SCHEMA_STATES = 32_768
#: The tools of a request whose schemas are compiled may be as large together as so many schemas.
TOOL_SCHEMAS = 4
MAX_REGEX_CHARACTERS = 512
#: States that an expression may have once its counted repeats are written out.
MAX_REGEX_STATES = 4_096
MAX_COUNT = 4_096
MAX_CHOICES = 1_000
MAX_TOOLS = 128

_COUNTS = frozenset(
    {
        "minItems",
        "maxItems",
        "minLength",
        "maxLength",
        "minProperties",
        "maxProperties",
        "minContains",
        "maxContains",
    }
)
_REPEAT = re.compile(r"\{ *(\d*) *(?:, *(\d*) *)?\}")

_GRAMMARS = "is not served: write a JSON schema, a regex or a list of choices"
_STRUCTURED = frozenset(
    {"json", "regex", "choice", "json_object", "disable_any_whitespace", "disable_additional_properties"}
)


def check_response_format(value: Any) -> str:
    """Check ``response_format``, whose schema is in ``json_schema``."""
    return _check_format(value, value.get("json_schema") if type(value) is dict else None)


def check_text_settings(value: Any) -> str:
    """Check ``text`` of a response."""
    if type(value) is not dict or not value.keys() <= {"format", "verbosity"}:
        return 'must be an object such as {"format": {…}}'
    if value.get("verbosity") not in (None, "medium"):
        return "can't have a verbosity here: the engine knows none"
    form = value.get("format")
    return "" if form is None else _check_format(form, form)


def check_structured_outputs(value: Any) -> str:
    """Check ``structured_outputs``, vLLM's own form."""
    if type(value) is not dict:
        return 'must be an object such as {"json": {…}}'
    for name in ("grammar", "structural_tag", "whitespace_pattern"):
        if value.get(name) is not None:
            return f"with {name} {_GRAMMARS}"
    if unknown := value.keys() - _STRUCTURED - {"grammar", "structural_tag", "whitespace_pattern"}:
        return f"has no member {sorted(unknown)[0][:100]!r}: it has {', '.join(sorted(_STRUCTURED))}"
    if (schema := value.get("json")) is not None and (problem := check_schema(schema)):
        return problem
    if (regex := value.get("regex")) is not None and (problem := check_regex(regex)):
        return problem
    if (choice := value.get("choice")) is not None:
        return _check_choices(choice)
    return ""


def check_tools(value: Any) -> str:
    """Check ``tools``: their number and kind. Their schemas are compiled only where an answer must keep to them."""
    if problem := items(MAX_TOOLS)(value):
        return problem
    for tool in value:
        if type(tool) is not dict or tool.get("type", "function") != "function":
            return 'must be functions, {"type": "function", …}: the engine calls no tools itself'
    return ""


def check_strict_tools(body: dict[str, Any]) -> str:
    """Check the schemas of tools that are compiled: by the choice of a tool, or of strict ones."""
    tools = body.get("tools")
    if not tools:
        return ""
    compiled = body.get("tool_choice") not in (None, "auto", "none")
    size = _Size(TOOL_SCHEMAS)
    for tool in tools:
        function = tool.get("function", tool)
        if type(function) is not dict or not (compiled or function.get("strict") or tool.get("strict")):
            continue
        if problem := check_schema(function.get("parameters")) or size.add(function.get("parameters")):
            return problem
    return ""


def check_schema(schema: Any) -> str:
    """Check a JSON schema, or JSON text of one."""
    if type(schema) is str:
        if len(schema) > MAX_SCHEMA_CHARACTERS:
            return _too_large("characters", MAX_SCHEMA_CHARACTERS)
        try:
            schema = orjson.loads(schema)
        except orjson.JSONDecodeError:
            return "must be a JSON schema"
    return _Size(1).add(schema) or _check_expansion(schema)


class _Size:
    """Size of one or several schemas as they are written.

    Args:
        schemas: they may be as large together as so many of the largest ones.
    """

    def __init__(self, schemas: int) -> None:
        self._schemas = schemas
        self._nodes = self._characters = self._states = self._optional = 0

    def add(self, schema: Any) -> str:
        """Add a schema; returns what is wrong with it, or with all of them."""
        level: list[Any] = [schema]
        for _ in range(MAX_SCHEMA_DEPTH):
            below: list[Any] = []
            for node in level:
                if type(node) is dict and (problem := _check_keywords(node)):
                    return problem
                below += self._add_node(node)
            if problem := self._check():
                return problem
            if not below:
                return ""
            level = below
        return _too_large("levels", MAX_SCHEMA_DEPTH)

    def _add_node(self, node: Any) -> list[Any]:
        """Add a node; returns the objects and lists in it."""
        if type(node) is dict:
            self._characters += sum(map(len, node))
            self._states += sum(map(count_states, _expressions(node)))
            self._optional += count_optional(node) ** 2
            children = list(node.values())
        else:
            children = node if type(node) is list else []
        self._nodes += len(children) + 1
        self._characters += sum(len(child) for child in children if type(child) is str)
        return [child for child in children if type(child) in {dict, list}]

    def _check(self) -> str:
        for unit, found, most in (
            ("members", self._nodes, MAX_SCHEMA_NODES),
            ("characters", self._characters, MAX_SCHEMA_CHARACTERS),
            ("states in its regular expressions", self._states, MAX_SCHEMA_STATES),
        ):
            if found > self._schemas * most:
                return _too_large(unit, self._schemas * most)
        if self._optional > self._schemas * MAX_OPTIONAL**2:
            return (
                f"has a schema with more than {MAX_OPTIONAL} members of an object that may be left out, or with many "
                "in several objects: list members in required"
            )
        return ""


def _check_expansion(schema: Any) -> str:
    """Check what a schema is with its references written out."""
    if type(schema) not in {dict, list}:
        return ""
    # The engine compiles only these by a compiler that repeats what may be left out, and writes out recursion.
    has_patterns = _has_patterns(schema)
    expansion = measure(schema, repeats_optional=has_patterns)
    if expansion.is_endless:
        return "has a schema with a $ref that leads back to itself"
    if expansion.recurs and has_patterns:
        return "has a schema with patternProperties and a recursive $ref: write it without one of them"
    if expansion.levels > MAX_EXPANDED_DEPTH:
        return _too_large("levels with each $ref written out", MAX_EXPANDED_DEPTH)
    if expansion.members > MAX_EXPANDED_NODES:
        return _too_large("members with each $ref written out", MAX_EXPANDED_NODES)
    return ""


def _has_patterns(schema: Any) -> bool:
    stack = [schema]
    while stack:
        node = stack.pop()
        if type(node) is dict:
            if "patternProperties" in node:
                return True
            stack += node.values()
        elif type(node) is list:
            stack += node
    return False


def check_regex(regex: Any) -> str:
    """Check a regular expression."""
    if type(regex) is not str or len(regex) > MAX_REGEX_CHARACTERS:
        return f"must have regular expressions of at most {MAX_REGEX_CHARACTERS} characters"
    if count_states(regex) > MAX_REGEX_STATES:
        return f"has a regular expression of more than {MAX_REGEX_STATES:,} states: repeat less in it"
    return ""


def count_states(regex: str) -> int:
    """States of an expression once its counted repeats are written out; those of a bad one are of no use.

    A group counts as the sum of its parts, a counted repeat multiplies the part before it. One that repeats
    nothing leaves it as it is: it may be written out before it is left out.
    """
    groups: list[list[int]] = [[0]]
    position = 0
    while position < len(regex):
        character = regex[position]
        step = 1
        if character == "\\":
            groups[-1].append(1)
            step = 2
        elif character == "[":
            groups[-1].append(1)
            step = _class_end(regex, position) - position
        elif character == "(":
            groups.append([0])
        elif character == ")" and len(groups) > 1:
            group = groups.pop()
            groups[-1].append(sum(group))
        elif character == "{" and (repeat := _REPEAT.match(regex, position)):
            groups[-1][-1] *= max([1, *(int(number) for number in repeat.groups() if number)])
            step = repeat.end() - position
        elif character not in "*+?|^$":
            groups[-1].append(1)
        position += step
    return sum(map(sum, groups))


def _class_end(regex: str, begin: int) -> int:
    """Position behind a class of characters."""
    position = begin + 1
    if regex[position : position + 1] == "^":
        position += 1
    # The first bracket is a member of the class.
    position += regex[position : position + 1] == "]"
    while position < len(regex) and regex[position] != "]":
        position += 2 if regex[position] == "\\" else 1
    return position + 1


def _check_format(value: Any, holder: Any) -> str:
    """Check a format of answers; ``holder`` is the object with its schema."""
    kind = value.get("type") if type(value) is dict else None
    if kind not in ("text", "json_object", "json_schema"):
        return 'must be an object whose type is "text", "json_object" or "json_schema"'
    if kind != "json_schema":
        return ""
    if type(holder) is not dict:
        return "must have its schema in json_schema"
    return check_schema(holder.get("schema"))


def _check_keywords(node: dict[str, Any]) -> str:
    for name in _COUNTS & node.keys():
        if type(node[name]) in {int, float} and node[name] > MAX_COUNT:
            return f"has a schema with {name} above {MAX_COUNT:,}"
    reference = node.get("$ref")
    if type(reference) is str and not reference.startswith("#"):
        return 'has a schema with a $ref to another document: write it into "$defs"'
    return next(filter(None, map(check_regex, _expressions(node))), "")


def _expressions(node: dict[str, Any]) -> list[str]:
    pattern, patterns = node.get("pattern"), node.get("patternProperties")
    return [
        *([pattern] if type(pattern) is str else []),
        *(patterns if type(patterns) is dict else []),
    ]


def _check_choices(choice: Any) -> str:
    if type(choice) is not list or len(choice) > MAX_CHOICES or not all(type(each) is str for each in choice):
        return f"must have a list of at most {MAX_CHOICES:,} choices, each a text"
    if sum(map(len, choice)) > MAX_SCHEMA_CHARACTERS:
        return f"must have choices of at most {MAX_SCHEMA_CHARACTERS:,} characters together"
    return ""


def _too_large(unit: str, most: int) -> str:
    return f"has a schema of more than {most:,} {unit}"
