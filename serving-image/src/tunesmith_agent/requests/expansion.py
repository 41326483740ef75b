"""What a JSON schema becomes once each ``$ref`` is written out, measured without writing it out.

Compilers differ in what they write out. xgrammar and llguidance compile each definition once, but llguidance follows
references by recursion, which ends the process after some hundred levels. outlines writes out all of them, and the
members of an object once for each member that may be left out; vLLM takes it for schemas with ``patternProperties``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

#: No measure grows beyond it, so that measuring stays fast.
_MANY = 10**9


@dataclass(frozen=True, slots=True)
class Expansion:
    """Measures of a schema that is written out.

    Attributes:
        members: members of all objects and lists together; one that recurs counts once.
        levels: levels of objects and lists within each other.
        recurs: a definition holds itself, at some depth.
        is_endless: a ``$ref`` leads back to itself, with nothing in between.
    """

    members: int
    levels: int
    recurs: bool
    is_endless: bool


def measure(schema: Any, *, repeats_optional: bool) -> Expansion:
    """Measure a schema; each of its objects and lists is looked at once.

    Args:
        repeats_optional: count the members of an object once for each one that may be left out.
    """
    inner: dict[int, list[Any]] = {}
    # None while a node is measured: whoever meets it then is within it.
    measured: dict[int, tuple[int, int] | None] = {}
    referred: dict[int, int] = {}
    recurs = False
    stack = [schema]
    while stack:
        node = stack[-1]
        key = id(node)
        if key not in measured:
            measured[key] = None
            inner[key] = _containers(node)
            if (target := _target(schema, node)) is not None:
                inner[key].append(target)
                referred[key] = id(target)
            stack += (child for child in inner[key] if id(child) not in measured)
            continue
        stack.pop()
        if measured[key] is not None:
            continue
        found = [measured[id(child)] for child in inner.pop(key)]
        known = [each for each in found if each is not None]
        recurs = recurs or len(known) < len(found)
        repeats = max(1, count_optional(node)) if repeats_optional else 1
        members = 1 + len(node) + repeats * sum(each[0] for each in known)
        measured[key] = min(members, _MANY), 1 + max((each[1] for each in known), default=0)
    members, levels = measured[id(schema)] or (0, 0)
    return Expansion(members, levels, recurs, _has_circle(referred))


def count_optional(node: Any) -> int:
    """Members of an object that may be left out."""
    properties = node.get("properties") if type(node) is dict else None
    if type(properties) is not dict:
        return 0
    required = node.get("required")
    names = {name for name in required if type(name) is str} if type(required) is list else set()
    return len(properties.keys() - names)


def _containers(node: Any) -> list[Any]:
    children: Iterable[Any] = node.values() if type(node) is dict else node
    return [child for child in children if type(child) in {dict, list}]


def _target(schema: Any, node: Any) -> Any:
    """Object that the ``$ref`` of a node names; None if there is none. Anchors are left to the engine."""
    reference = node.get("$ref") if type(node) is dict else None
    if type(reference) is not str or not (reference == "#" or reference.startswith("#/")):
        return None
    found = schema
    for part in reference.split("/")[1:]:
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        if type(found) is dict:
            found = found.get(name)
        elif type(found) is list and name.isdecimal() and len(name) < 5 and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found if type(found) in {dict, list} else None


def _has_circle(following: dict[int, int]) -> bool:
    """True if somebody who goes from each key to its value comes back."""
    finished: set[int] = set()
    for start in following:
        path: set[int] = set()
        key: int | None = start
        while key is not None and key not in finished:
            if key in path:
                return True
            path.add(key)
            key = following.get(key)
        finished |= path
    return False
