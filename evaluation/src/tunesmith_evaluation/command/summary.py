"""Summary of a report as plain text for a terminal."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import wrap

from tunesmith_contract.evaluation import Tier
from tunesmith_data.html_pages.text_filters import reveal_controls
from tunesmith_evaluation.report import sentences
from tunesmith_evaluation.report.document import EvaluationDocument

_WIDTH = 100
_LABEL = 12


def summarize(document: EvaluationDocument, places: Mapping[str, Path]) -> str:
    """Verdict, gates, warnings and where the files are.

    Args:
        document: the report.
        places: paths of the results, by label.
    """
    parts = [
        [f"{document.run.name}: {document.verdict.verdict}", *_wrapped(document.verdict.message)],
        list(_gates(document)),
        list(_omissions(document)),
        [line for warning in document.warnings for line in _labeled("Note", warning)],
        [line for sentence in document.advice for line in _labeled("Advice", sentence)],
        [f"  {label:{_LABEL}}{path}" for label, path in places.items()],
    ]
    return reveal_controls("\n\n".join("\n".join(part) for part in parts if part) + "\n")


def _gates(document: EvaluationDocument) -> Iterator[str]:
    for gate in document.gates:
        result = document.metric(gate.suite, gate.metric)
        measured = f"measured {sentences.change(result)}" if result is not None else "not measured"
        tier = " (advisory)" if gate.tier is Tier.ADVISORY else ""
        names = f"{gate.suite} {gate.metric}"
        yield f"  {gate.verdict:{_LABEL + 2}}{names}: {sentences.expectation(gate)}{tier}; {measured}"
        more = sentences.more_items(gate)
        if more:
            yield f"  {'':{_LABEL + 2}}{more}"


def _omissions(document: EvaluationDocument) -> Iterator[str]:
    for suite in document.suites:
        counts = [f"{count:,} {name}" for name, count in sentences.left_out(suite)]
        phrases = [f"{suite.used:,} of {suite.selected:,} items compared", *counts]
        yield from _labeled("Items", f"{suite.name}: {'; '.join(phrases)}. {suite.problem}".rstrip())


def _labeled(label: str, text: str) -> Iterator[str]:
    for index, line in enumerate(wrap(text, _WIDTH - _LABEL, break_on_hyphens=False)):
        yield f"  {label if index == 0 else '':{_LABEL}}{line}"


def _wrapped(text: str) -> list[str]:
    return [f"  {line}" for line in wrap(text, _WIDTH - 2, break_on_hyphens=False)]
