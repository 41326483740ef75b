"""JUnit XML of a report: a test suite per suite of the evaluation, a test case per gate.

============ ========= ===================================================
tier         verdict   in JUnit
============ ========= ===================================================
Blocking     Pass      a test case that passed
Blocking     Fail      ``<failure>``
Blocking     else      ``<skipped>``: too little is known
Advisory     any       a test case that passed, with the result in ``<system-out>``
============ ========= ===================================================

Most viewers count skipped test cases as harmless: a pipeline that must stop on Inconclusive goes by the exit code.
"""

from collections.abc import Sequence
from xml.etree import ElementTree

from tunesmith_contract.evaluation import Tier
from tunesmith_contract.shared_rules.verdict import Verdict
from tunesmith_data.html_pages.text_filters import reveal_controls

from . import sentences
from .document import EvaluationDocument, GateReport

#: Characters of a message.
_MESSAGE = 4000


def render_junit(document: EvaluationDocument) -> str:
    """The report as JUnit XML, which GitLab, Jenkins and actions for GitHub read."""
    names = dict.fromkeys([suite.name for suite in document.suites] + [gate.suite for gate in document.gates])
    blocking = [gate for gate in document.gates if gate.tier is Tier.BLOCKING]
    root = ElementTree.Element(
        "testsuites", {"name": _clean(document.run.name)} | _counts(document.gates, blocking)
    )
    seconds = (document.run.ended - document.run.started).total_seconds()
    root.set("time", f"{seconds:.3f}")
    for index, name in enumerate(names):
        gates = [gate for gate in document.gates if gate.suite == name]
        counts = _counts(gates, [gate for gate in gates if gate.tier is Tier.BLOCKING])
        suite = ElementTree.SubElement(root, "testsuite", {"name": _clean(name)} | counts)
        suite.set("timestamp", document.run.started.isoformat())
        if index == 0:
            _add_properties(suite, document)
        for gate in gates:
            _add_case(suite, document, gate)
        problems = [each.problem for each in document.suites if each.name == name and each.problem]
        if problems:
            ElementTree.SubElement(suite, "system-err").text = _clean(problems[0])
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _counts(gates: Sequence[GateReport], blocking: Sequence[GateReport]) -> dict[str, str]:
    return {
        "tests": str(len(gates)),
        "failures": str(sum(gate.verdict is Verdict.FAIL for gate in blocking)),
        "skipped": str(sum(gate.verdict is Verdict.INCONCLUSIVE for gate in blocking)),
        "errors": "0",
    }


def _add_properties(suite: ElementTree.Element, document: EvaluationDocument) -> None:
    properties = ElementTree.SubElement(suite, "properties")
    named = {
        "verdict": document.verdict.verdict,
        "reason": document.verdict.reason,
        "policyDigest": document.policy.digest,
        "candidate": sentences.identity(document.sides[0]),
        "baseline": sentences.identity(document.sides[1]),
    }
    for name, value in named.items():
        ElementTree.SubElement(properties, "property", name=name, value=_clean(value))


def _add_case(suite: ElementTree.Element, document: EvaluationDocument, gate: GateReport) -> None:
    result = document.metric(gate.suite, gate.metric)
    case = ElementTree.SubElement(
        suite,
        "testcase",
        name=_clean(f"{gate.metric}: {sentences.expectation(gate)}"),
        classname=_clean(f"{document.run.name}.{gate.suite}"),
    )
    measured = (
        f"{sentences.change(result)}, {sentences.outcomes(result)}"
        if result and result.delta
        else "not measured"
    )
    said = ". ".join(
        part.rstrip(".") for part in (measured, gate.message, sentences.more_items(gate)) if part
    )
    if gate.tier is Tier.ADVISORY:
        ElementTree.SubElement(case, "system-out").text = _clean(f"Advisory gate: {gate.verdict}: {said}")
    elif gate.verdict is Verdict.FAIL:
        failure = ElementTree.SubElement(
            case, "failure", type=_clean(gate.reason or gate.verdict), message=_clean(said)
        )
        failure.text = _clean(document.verdict.message)
    elif gate.verdict is Verdict.INCONCLUSIVE:
        ElementTree.SubElement(case, "skipped", message=_clean(f"Inconclusive: {said}"))
    else:
        ElementTree.SubElement(case, "system-out").text = _clean(said)


def _clean(text: str) -> str:
    """Text without characters that XML forbids."""
    return reveal_controls(text[:_MESSAGE])
