"""Actions in the annotation of an AdapterDeployment, and what of it can't be understood."""

import hashlib
import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from tunesmith.api.actions import ACTION_ANNOTATION, MAX_ANNOTATED, MAX_ANNOTATED_EACH, Action
from tunesmith.api.common import ObjectMeta, describe_faults
from tunesmith_contract.base import canonical_json

_ID_DIGITS, _CONTENT_DIGITS = 12, 8


@dataclass(frozen=True, slots=True)
class RequestedActions:
    """Content of the annotation.

    Attributes:
        actions: those that can be understood, in their order.
        manager: the field manager that wrote the annotation last; empty if it is not known.
        faults: sentences about the others.
    """

    actions: tuple[Action, ...] = ()
    manager: str = ""
    faults: tuple[str, ...] = ()

    def of(self, alias: str) -> tuple[Action, ...]:
        """The actions on this alias."""
        return tuple(action for action in self.actions if action.adapter == alias)


def read_actions(metadata: ObjectMeta, adapters: Collection[str]) -> RequestedActions:
    """Actions in the annotation: one object, or a list of them.

    Args:
        adapters: the names of the aliases of the resource.
    """
    text = metadata.annotations.get(ACTION_ANNOTATION, "").strip()
    if not text:
        return RequestedActions()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        fault = f'the annotation is not JSON ({error}): write {{"id": …, "adapter": …, "verb": …}} in single quotes'
        return RequestedActions(faults=(fault,))
    elements = content if isinstance(content, list) else [content]
    if len(elements) > MAX_ANNOTATED:
        fault = f"the list has {len(elements)} actions: write at most {MAX_ANNOTATED}"
        return RequestedActions(faults=(fault,))
    actions: list[Action] = []
    faults: list[str] = []
    for index, element in enumerate(elements):
        place = f"action [{index}]: " if isinstance(content, list) else ""
        action = _read_action(element, adapters)
        if isinstance(action, str):
            faults.append(f"{place}{action}")
        elif any((known.id, known.adapter) == (action.id, action.adapter) for known in actions):
            faults.append(f"{place}the id {action.id} stands twice: write another id")
        elif Counter(known.adapter for known in actions)[action.adapter] == MAX_ANNOTATED_EACH:
            faults.append(f"{place}write at most {MAX_ANNOTATED_EACH} actions for one adapter")
        else:
            actions.append(action)
    return RequestedActions(tuple(actions), _find_manager(metadata), tuple(faults))


def _read_action(element: Any, adapters: Collection[str]) -> Action | str:
    """The action, or a sentence about its fault."""
    try:
        action = Action.model_validate(element)
    except ValidationError as error:
        return describe_faults(error)
    if action.adapter not in adapters:
        named = ", ".join(sorted(adapters)[:10]) or "none"
        return f"adapter: {action.adapter} is not in spec.adapters, which has {named}"
    return action


def _find_manager(metadata: ObjectMeta) -> str:
    """The manager that wrote the annotation last."""
    writers = [entry for entry in metadata.managed_fields if entry.has_annotation(ACTION_ANNOTATION)]
    latest = max(writers, key=lambda entry: entry.time.timestamp() if entry.time else 0.0, default=None)
    return latest.manager if latest else ""


def fingerprint(action: Action) -> str:
    """Short form of an ID and of what was asked by it, by which a known action is recognized."""
    content = [action.verb.value, action.digest, action.to_version]
    identity = hashlib.sha256(action.id.encode()).hexdigest()[:_ID_DIGITS]
    return identity + hashlib.sha256(canonical_json(content)).hexdigest()[:_CONTENT_DIGITS]


def has_same_id(one: str, other: str) -> bool:
    """True for two fingerprints of one ID."""
    return one[:_ID_DIGITS] == other[:_ID_DIGITS]
