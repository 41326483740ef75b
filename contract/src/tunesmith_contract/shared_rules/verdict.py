"""Verdicts of gates and of a whole comparison, from p-values.

The pod that compares two sides computes two one-sided p-values for each gate; operator and console command turn them
into the same verdict with this rule. With confidence c, a one-sided test has the level alpha = (1 - c) / 2, as each
end of a two-sided interval of confidence c has: 0.025 for 0.95.

- A gate passes when its p_pass is at most alpha and enough items were compared.
- A comparison passes when all Blocking gates pass. Nothing is corrected for: all of them have to be true to pass
  together (intersection-union test, Berger 1982), so the chance of a false Pass is at most alpha.
- A Blocking gate fails when its p_fail, corrected by Holm (1979) over all Blocking gates, is at most alpha. One
  failing gate fails the comparison, so that the chance of any false Fail is at most alpha as well.
- What was not measured, or not well enough, never passes: the gate is Inconclusive.
- A margin never passes a gate that could not have failed. Of a NotWorse gate it counts up to half of what the baseline
  has, which is the distance of its score from the worst possible one (`largest_margin`). With a larger one the gate
  passes only if a gain is shown: p_pass is then that of a margin of 0, and else the problem is MarginTooLarge. The
  built-in safety suites are an exception: their gates pass, and say that the baseline has little to lose.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tunesmith_contract.evaluation import Expect, Gate, Tier
from tunesmith_contract.report import EvaluationReport, GateEvidence, GateProblem
from tunesmith_contract.safety import SAFETY_SUITES


class Verdict(StrEnum):
    """Result of a gate or of a comparison."""

    PASS = "Pass"
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """Verdict on one gate.

    Attributes:
        verdict: the verdict.
        evidence: the evidence it follows from.
        corrected_p_fail: p_fail after Holm's correction over the Blocking gates; p_fail itself for Advisory gates.
        reason: half a sentence on the verdict, such as "about 120 more items would decide".
    """

    verdict: Verdict
    evidence: GateEvidence
    corrected_p_fail: float
    reason: str


@dataclass(frozen=True, slots=True)
class ComparisonVerdict:
    """Verdict on a comparison, with the verdicts on its gates in their order."""

    verdict: Verdict
    gates: tuple[GateVerdict, ...]


def one_sided_level(confidence: float) -> float:
    """Level of a one-sided test that belongs to a two-sided interval of this confidence."""
    return (1 - confidence) / 2


def largest_margin(baseline: float, worst: float) -> float:
    """Largest margin that counts in a NotWorse gate: half of the distance of the baseline from the worst score.

    A candidate that has the worst score everywhere stays within any margin beyond the whole distance, and within one
    beyond its half a candidate can lose more than it keeps.

    Args:
        baseline: score of the baseline.
        worst: worst possible score; infinite where there is none, as then each margin can be exceeded.
    """
    return abs(baseline - worst) / 2


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Values of Holm's step-down correction (1979), in the order of the given ones."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return tuple(corrected)


def judge(
    gates: Sequence[Gate], evidence: Sequence[GateEvidence | None], confidence: float
) -> ComparisonVerdict:
    """Verdict on a comparison.

    Without a Blocking gate nothing can pass: the verdict is Inconclusive.

    Args:
        gates: all gates.
        evidence: evidence on each gate, in the order of the gates; None where the pod reported none.
        confidence: confidence level of the two-sided intervals, between 0 and 1.

    Raises:
        ValueError: there are not as many pieces of evidence as gates.
    """
    if len(gates) != len(evidence):
        raise ValueError(f"{len(gates)} gates, but evidence on {len(evidence)}")
    level = one_sided_level(confidence)
    complete = [found or NOT_MEASURED for found in evidence]
    corrected = _corrected_failures(gates, complete)
    judged = tuple(
        _judge_gate(gate, found, p_fail, level)
        for gate, found, p_fail in zip(gates, complete, corrected, strict=True)
    )
    blocking = [
        result.verdict for gate, result in zip(gates, judged, strict=True) if gate.tier is Tier.BLOCKING
    ]
    if Verdict.FAIL in blocking:
        return ComparisonVerdict(Verdict.FAIL, judged)
    passed = bool(blocking) and all(verdict is Verdict.PASS for verdict in blocking)
    return ComparisonVerdict(Verdict.PASS if passed else Verdict.INCONCLUSIVE, judged)


def judge_report(report: EvaluationReport) -> Verdict:
    """Verdict by the evidence that a report holds. The report names neither suites nor margins, which it needs not."""
    gates = [
        Gate(
            suite="any",
            metric="any",
            expect=Expect.BETTER,
            tier=Tier.BLOCKING if found.is_blocking else Tier.ADVISORY,
            min_items=1,
        )
        for found in report.gates
    ]
    return judge(gates, report.gates, report.confidence).verdict


#: Evidence on a gate whose metric was not measured.
NOT_MEASURED = GateEvidence(items=0, threshold=0, p_pass=1, p_fail=1, problem=GateProblem.MISSING)

#: Problems beside which a gate still can fail: few items make a test weak, not wrong; what is worse than a margin that
#: is too large is worse than any, and so is what is worse than a baseline that hardly answers.
_MAY_FAIL = (
    None,
    GateProblem.TOO_FEW_ITEMS,
    GateProblem.MARGIN_TOO_LARGE,
    GateProblem.BASELINE_EMPTY,
)


def _corrected_failures(gates: Sequence[Gate], evidence: Sequence[GateEvidence]) -> list[float]:
    """p_fail of each gate, corrected over the Blocking gates. One that can't fail counts as 1."""
    corrected = [found.p_fail if found.problem in _MAY_FAIL else 1.0 for found in evidence]
    blocking = [index for index, gate in enumerate(gates) if gate.tier is Tier.BLOCKING]
    for index, value in zip(blocking, holm([corrected[index] for index in blocking]), strict=True):
        corrected[index] = value
    return corrected


def _judge_gate(gate: Gate, found: GateEvidence, corrected: float, level: float) -> GateVerdict:
    problem = found.problem
    if problem is None and found.items < gate.min_items:
        problem = GateProblem.TOO_FEW_ITEMS
    if corrected <= level:
        return GateVerdict(Verdict.FAIL, found, corrected, _tested("p", found.p_fail, corrected))
    if problem is not None:
        return GateVerdict(Verdict.INCONCLUSIVE, found, corrected, _problem_reason(problem, gate, found))
    if found.p_pass <= level:
        return GateVerdict(
            Verdict.PASS, found, corrected, f"p {found.p_pass:.2g}{_little_to_lose(gate, found)}"
        )
    return GateVerdict(Verdict.INCONCLUSIVE, found, corrected, _doubt(found, corrected, level))


def _problem_reason(problem: GateProblem, gate: Gate, found: GateEvidence) -> str:
    match problem:
        case GateProblem.MISSING:
            return "it was not measured"
        case GateProblem.SKIPPED:
            return "its suite was skipped"
        case GateProblem.TOO_MANY_BROKEN:
            return "too many items have no score, or a baseline whose thinking did not end"
        case GateProblem.BUDGET_EXHAUSTED:
            return "the budget of an endpoint or judge was used up before all was asked"
        case GateProblem.TOO_FEW_ITEMS:
            if found.items >= gate.min_items:
                return f"{found.items:,} items in too few independent groups{_more(found)}"
            return f"{found.items:,} items, at least {gate.min_items:,} are needed{_more(found)}"
        case GateProblem.MARGIN_TOO_LARGE:
            return _margin_reason(found)
        case GateProblem.BASELINE_EMPTY:
            return (
                "more than half of the baseline's answers are empty texts, which anything beats: correct its prompt, "
                "its chat template or its endpoint, or name another baseline"
            )
        case GateProblem.SAME_MODELS:
            return "candidate and baseline are the same model, asked in the same way: name another baseline"


def _little_to_lose(gate: Gate, found: GateEvidence) -> str:
    """Remark on a gate of a built-in safety suite whose baseline has little that can get lost."""
    if found.largest_margin is None or gate.suite not in SAFETY_SUITES:
        return ""
    return f"; the baseline scores {2 * found.largest_margin:.2g} there, so it has little to lose"


def _margin_reason(found: GateEvidence) -> str:
    """Cause and remedy of a margin that does not count."""
    limit = found.largest_margin or 0.0
    said = (
        f"the margin {abs(found.threshold):.3g} is more than half of what the baseline has ({2 * limit:.3g} above the "
        "worst score), so only a gain would pass"
    )
    unit = 10 ** (math.floor(math.log10(limit)) - 1) if limit > 0 else 1.0
    rounded = math.floor(limit / unit) * unit
    smaller = f"write a margin of at most {rounded:.2g} or a relativeMargin, or " if rounded > 0 else ""
    return f"{said}: {smaller}take a suite on which the baseline does better"


def _doubt(found: GateEvidence, corrected: float, level: float) -> str:
    """Cause of a verdict that neither passes nor fails."""
    if found.p_fail <= level:
        tested = _tested("it fails by itself with p", found.p_fail, corrected)
        return f"{tested}, which is above {level:.3g}{_more(found)}"
    if found.more_items is None:
        return "the difference is as good as the margin; more items would not decide"
    return f"too few items{_more(found)}"


def _more(found: GateEvidence) -> str:
    return f"; about {found.more_items:,} more would decide" if found.more_items else ""


def _tested(words: str, raw: float, corrected: float) -> str:
    if raw == corrected:
        return f"{words} {raw:.2g}"
    return f"{words} {raw:.2g}, {corrected:.2g} after correction for the number of gates"
