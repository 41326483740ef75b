"""Compact form of a record's counters: the agents are named once, and each has a row of numbers in each arm.

With a thousand pods the counters of their agents are nearly all of a record, and an object of Kubernetes has 1 MiB.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from tunesmith.decide.serving.evidence import Counts

#: Member of a record with boot ID and pod UID of each agent, which rows refer to by their place.
AGENTS = "agents"

#: Names of the numbers in a row, in their order.
_NAMES = tuple(str(field.alias) for field in Counts.model_fields.values())


def compact(record: dict[str, Any]) -> dict[str, Any]:
    """The document of a record with its counters as rows; it is changed in place."""
    places: dict[tuple[str, str], int] = {}
    for arm in _arms(record):
        arm["runs"] = [
            [
                places.setdefault((boot, run["podUid"]), len(places)),
                int(run.get("counted", False)),
                *_to_row(run.get("latest", {})),
            ]
            for boot, run in arm["runs"].items()
        ]
    return {**record, AGENTS: [list(agent) for agent in places]} if places else record


def expand(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The document of a record with its counters by name; one that is not compact is left as it is."""
    if AGENTS not in record:
        return record
    agents = record[AGENTS]
    for arm in _arms(record):
        arm["runs"] = {
            agents[place][0]: {
                "podUid": agents[place][1],
                "counted": bool(counted),
                "latest": dict(zip(_NAMES, row, strict=False)),
            }
            for place, counted, *row in arm["runs"]
        }
    return {name: value for name, value in record.items() if name != AGENTS}


def _to_row(counts: Mapping[str, int]) -> list[int]:
    """The numbers in their order, without zeros at the end."""
    row = [counts.get(name, 0) for name in _NAMES]
    while row and row[-1] == 0:
        row.pop()
    return row


def _arms(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Arms with counters of agents."""
    for part in ("candidate", "watch"):
        evidence = (record.get(part) or {}).get("evidence") or {}
        for arm in evidence.values():
            if arm.get("runs"):
                yield arm
