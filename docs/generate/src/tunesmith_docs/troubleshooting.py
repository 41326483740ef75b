"""Troubleshooting page: reasons from the code, joined with causes and remedies from ``reasons.yaml``."""

import ast
import importlib
import pkgutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from .markdown import table

_DATA = Path(__file__).with_name("reasons.yaml")
_INTRODUCTION = Path(__file__).with_name("troubleshooting.md")

#: Which kinds show the reasons of an enum; those of other enums are shown by all kinds.
_KINDS = {
    "RunReason": ("FineTuneJob", "EvalRun"),
    "FineTuneJobReason": ("FineTuneJob",),
    "EvalRunReason": ("EvalRun",),
    "AdapterDeploymentReason": ("AdapterDeployment",),
}

#: Reasons of RunReason that no EvalRun shows: it has no suspend, no GPU budget and no remedy, and ends in a verdict.
_FINE_TUNE_JOB_ALONE = frozenset(
    {"BudgetExhausted", "OutOfMemoryRemedy", "Pruned", "Resumed", "Succeeded", "Suspended"}
)

#: Exceptions and records of pods that take a reason as their first argument, or as ``reason``.
_FAILURES = frozenset(
    {
        "ArtifactInvalid",
        "ArtifactUnreadable",
        "CommunicationError",
        "DataError",
        "Failure",
        "InfrastructureError",
        "InternalError",
        "LoadFailure",
        "NotFound",
        "StorageRefused",
        "StorageUnavailable",
        "UserError",
    }
)


def load_sections() -> list[dict[str, Any]]:
    """The sections of ``reasons.yaml``."""
    sections: list[dict[str, Any]] = yaml.safe_load(_DATA.read_text())
    return sections


def described_reasons() -> set[str]:
    """Reasons that have an entry."""
    return {reason for section in load_sections() for reason in section["reasons"]}


def operator_reasons(packages: Iterable[ModuleType]) -> dict[str, set[str]]:
    """Reasons of all enums in these packages whose names end in ``Reason``, and the kinds that show them."""
    kinds: dict[str, set[str]] = defaultdict(set)
    modules = [
        importlib.import_module(info.name)
        for package in packages
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    for module in modules:
        for name, value in vars(module).items():
            if name.endswith("Reason") and isinstance(value, type) and issubclass(value, StrEnum):
                for reason in value:
                    kinds[reason.value].update(_KINDS.get(name, ()))
    for name in _FINE_TUNE_JOB_ALONE:
        kinds[name].discard("EvalRun")
    return dict(kinds)


def pod_reasons(sources: Iterable[Path]) -> set[str]:
    """Reasons that the code of trainer, data, storage and agent writes as literals."""
    return {
        reason
        for folder in sources
        for file in sorted(folder.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        for reason in _reasons_in(node)
    }


def _reasons_in(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=str(reason)), _, *_]) if (
            name in _FAILURES
        ):
            yield reason
        case ast.Call(func=ast.Name(id="Failure"), keywords=keywords):
            yield from (
                keyword.value.value
                for keyword in keywords
                if keyword.arg == "reason"
                and isinstance(keyword.value, ast.Constant)
                and isinstance(keyword.value.value, str)
            )
        case ast.Tuple(
            elts=[ast.Attribute(value=ast.Name(id="FailureCategory")), ast.Constant(value=str(reason))]
        ):
            yield reason


def troubleshooting_page(kinds: Mapping[str, set[str]], notice: str) -> str:
    """The page: an introduction, then a table of reasons for each section."""
    parts = [notice, _INTRODUCTION.read_text().strip()]
    for section in load_sections():
        parts += [f"## {section['title']}", section["about"].strip(), _table(section, kinds)]
    return "\n\n".join(parts) + "\n"


def _table(section: Mapping[str, Any], kinds: Mapping[str, set[str]]) -> str:
    """The reasons of a section; ``columns`` names what is shown of each."""
    columns: list[str] = section.get("columns", ["cause", "what to do"])
    rows = (
        [f"`{reason}`", *(_cell(column, entry, kinds.get(reason, set())) for column in columns)]
        for reason, entry in section["reasons"].items()
    )
    return table(["reason", *columns], rows)


def _cell(column: str, entry: Mapping[str, str], kinds: set[str]) -> str:
    match column:
        case "shown on":
            return ", ".join(sorted(kinds)) or "all kinds"
        case "cause" | "meaning":
            return entry["cause"]
        case "what to do":
            return entry["remedy"]
    raise ValueError(f"reasons.yaml: there is no column {column!r}")
