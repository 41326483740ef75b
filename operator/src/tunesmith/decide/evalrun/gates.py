"""Verdicts of gates, from intervals: passed, failed or inconclusive.

With margin m and the paired interval [low, high] of candidate minus baseline:

============ ================ ================= =================
expect       Pass             Fail              else
============ ================ ================= =================
``Better``   low > m          high < m          Inconclusive
``NotWorse`` low > -m         high < -m         Inconclusive
============ ================ ================= =================

A two-sided interval of confidence c lies wholly above the true difference in at most (1 - c) / 2 of all
evaluations, so a candidate that is no better than the margin passes by luck no more often than that.
"""

from collections.abc import Iterable, Mapping, Sequence

from tunesmith.api.evaluation_suites import Gate
from tunesmith.api.reasons import Verdict
from tunesmith_contract.evaluation import Expect
from tunesmith_contract.report import Interval, MetricResult

_WORST_FIRST = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)


def judge_gate(expect: Expect, margin: float, delta: Interval) -> Verdict:
    """One gate's verdict on candidate minus baseline."""
    threshold = margin if expect is Expect.BETTER else -margin
    if delta.low > threshold:
        return Verdict.PASS
    return Verdict.FAIL if delta.high < threshold else Verdict.INCONCLUSIVE


def judge_gates(gates: Sequence[Gate], results: Iterable[MetricResult]) -> Mapping[Gate, Verdict]:
    """Each gate's verdict; one whose metric was not measured is Inconclusive."""
    deltas = {(result.suite, result.metric): result.delta for result in results}
    verdicts: dict[Gate, Verdict] = {}
    for gate in gates:
        delta = deltas.get((gate.suite, gate.metric))
        margin = float(gate.margin)
        verdicts[gate] = Verdict.INCONCLUSIVE if delta is None else judge_gate(gate.expect, margin, delta)
    return verdicts


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Fail if one fails, Pass if all pass, else Inconclusive.

    Raises:
        ValueError: no verdict.
    """
    return min(verdicts, key=_WORST_FIRST.index)
