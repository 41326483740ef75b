"""Test cases of a run, parsed from the JUnit files of its stages."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple


class Case(NamedTuple):
    """One test: its name, seconds and outcome (`passed`, `failed` or `skipped`)."""

    name: str
    seconds: float
    outcome: str


def read_cases(folder: Path) -> list[Case]:
    """All test cases of the JUnit files in a folder."""
    return [
        _read_case(element)
        for file in sorted(folder.glob("*.xml"))
        for element in ElementTree.parse(file).iter("testcase")
    ]


def _read_case(element: ElementTree.Element) -> Case:
    name = f"{element.get('classname')}::{element.get('name')}"
    failed = element.find("failure") is not None or element.find("error") is not None
    outcome = "failed" if failed else "skipped" if element.find("skipped") is not None else "passed"
    return Case(name, float(element.get("time", 0)), outcome)
